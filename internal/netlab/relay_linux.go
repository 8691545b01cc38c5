package netlab

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// relayQueue bounds the frames under way in one direction; more are lost, as in a
// full router queue.
const relayQueue = 8192

// relay carries frames between the inner ends of two veth pairs, which stand in a
// namespace of their own: the delay that a kernel without netem cannot make.
type relay struct {
	delay atomic.Int64 // nanoseconds
	mu    sync.Mutex   // over drop and its calls
	drop  func(fromA bool, frame []byte) bool
	lost  atomic.Uint64
	a, b  *os.File
	wg    sync.WaitGroup
}

type delayedFrame struct {
	due   time.Time
	bytes []byte
}

// makeRelay makes the link out of two veth pairs and starts the relay.
func (k *Link) makeRelay(cfg LinkConfig) error {
	inner, n, err := k.lab.relayHost()
	if err != nil {
		return err
	}
	names := [2]string{fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)}
	r := &relay{drop: cfg.Drop}
	r.delay.Store(int64(cfg.Delay))
	files := [2]*os.File{}
	for i, e := range []*Interface{k.A, k.B} {
		if err := addVeth(e.Host, e.Name, inner, names[i], cfg.MTU); err != nil {
			return err
		}
		// The inner end is a wire: it has nothing to say itself.
		if err := inner.Do(func() error { return writeSysctl("net/ipv6/conf/"+names[i]+"/disable_ipv6", "1") }); err != nil {
			return err
		}
		end := &Interface{Host: inner, Name: names[i]}
		if err := end.find(); err != nil {
			return err
		}
		if err := end.setFlags(true); err != nil {
			return err
		}
		if files[i], err = packetSocket(inner, end.Index, unix.PACKET_IGNORE_OUTGOING); err != nil {
			return err
		}
	}
	r.a, r.b = files[0], files[1]
	r.wg.Go(func() { r.carry(r.a, r.b, true) })
	r.wg.Go(func() { r.carry(r.b, r.a, false) })
	k.relay = r
	k.lab.atClose(func() error {
		_ = r.a.Close()
		_ = r.b.Close()
		r.wg.Wait()
		return nil
	})
	return nil
}

// relayHost returns the namespace of the inner ends and a number for a new pair.
func (l *Lab) relayHost() (*Host, int, error) {
	l.mu.Lock()
	h, n := l.relays, len(l.closers)
	l.mu.Unlock()
	if h != nil {
		return h, n, nil
	}
	h = &Host{lab: l, name: "(relay)", ns: -1}
	if err := h.open(); err != nil {
		return nil, 0, err
	}
	l.mu.Lock()
	l.relays = h
	l.mu.Unlock()
	return h, n, nil
}

// carry takes frames from one end to the other until the sockets are closed. The
// order stays even when the delay is made shorter meanwhile.
func (r *relay) carry(from, to *os.File, fromA bool) {
	queue := make(chan delayedFrame, relayQueue)
	r.wg.Go(func() {
		for f := range queue {
			if wait := time.Until(f.due); wait > 0 {
				time.Sleep(wait)
			}
			// A full or downed device loses the frame, as a wire would.
			if _, err := to.Write(f.bytes); err != nil {
				r.lost.Add(1)
			}
		}
	})
	defer close(queue)
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue // the device went down; it may come up again
		}
		if r.dropped(fromA, buf[:n]) {
			continue
		}
		f := delayedFrame{time.Now().Add(time.Duration(r.delay.Load())), append([]byte(nil), buf[:n]...)}
		select {
		case queue <- f:
		default:
			r.lost.Add(1)
		}
	}
}

func (r *relay) dropped(fromA bool, frame []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drop != nil && r.drop(fromA, frame)
}

// SetDelay changes the delay of each direction. The link must have been made with
// Delay, Drop or Relay.
func (k *Link) SetDelay(d time.Duration) {
	k.lab.build("set delay", func() error {
		if k.relay == nil {
			return errors.New("not a relayed link")
		}
		k.relay.delay.Store(int64(d))
		return nil
	})
}

// SetDrop changes which frames are lost; nil loses none. The link must have been
// made with Delay, Drop or Relay.
func (k *Link) SetDrop(drop func(fromA bool, frame []byte) bool) {
	k.lab.build("set drop", func() error {
		if k.relay == nil {
			return errors.New("not a relayed link")
		}
		k.relay.mu.Lock()
		defer k.relay.mu.Unlock()
		k.relay.drop = drop
		return nil
	})
}

// Lost returns how many frames the relay could not hold or deliver. It stays 0
// unless the link is overloaded or down.
func (k *Link) Lost() uint64 {
	if k.relay == nil {
		return 0
	}
	return k.relay.lost.Load()
}
