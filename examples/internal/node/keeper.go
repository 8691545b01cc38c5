package node

import "sync"

// keeper writes down who the node is, by a goroutine of its own: a disk may take
// seconds, and the Runner must not wait for it. What was given later is written
// later, or instead.
type keeper struct {
	save  func(identity) error
	fails func(error)

	mu    sync.Mutex
	given sync.Cond
	next  *identity // to be written
	ended bool
	done  chan struct{}
}

// newKeeper makes a keeper. What save returns goes to fails, if it is an error.
func newKeeper(save func(identity) error, fails func(error)) *keeper {
	k := &keeper{save: save, fails: fails, done: make(chan struct{})}
	k.given.L = &k.mu
	go k.run()
	return k
}

// keep has id written. It does not wait.
func (k *keeper) keep(id identity) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = &id
	k.given.Signal()
}

// close waits until all is written that was given before.
func (k *keeper) close() {
	k.mu.Lock()
	k.ended = true
	k.given.Signal()
	k.mu.Unlock()
	<-k.done
}

func (k *keeper) run() {
	defer close(k.done)
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		for k.next == nil {
			if k.ended {
				return
			}
			k.given.Wait()
		}
		id := *k.next
		k.next = nil
		k.mu.Unlock()
		if err := k.save(id); err != nil {
			k.fails(err)
		}
		k.mu.Lock()
	}
}
