package control

import (
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Worker does that part of a core's work which changes no state of the core, on
// the goroutines that receive: as many at a time as the Conn has Readers.
// mapserver.Worker is one.
type Worker interface {
	// Step takes one datagram and reports whether it is dealt with. Otherwise
	// other cores are offered it. d.Bytes are only read during the call.
	Step(now time.Time, d lisp.Datagram) bool
	// Flush returns the datagrams to send that the calls of Step since the last
	// Flush have made, valid until the next Step, and what is to be run on the
	// loop that owns the core; nil when nothing is.
	Flush() (out []lisp.Datagram, apply func(now time.Time))
}

// reader is what one receiving goroutine of a Runner has.
type reader struct {
	rd     Reader
	worker Worker // may be nil
	write  func(ds []lisp.Datagram) (int, error)
}

func (r *Runner) newReader(rd Reader) *reader {
	s := &reader{rd: rd, write: r.cfg.Conn.WriteDatagrams}
	if r.cfg.NewWorker != nil {
		s.worker = r.cfg.NewWorker()
	}
	if w, ok := rd.(interface {
		WriteDatagrams(ds []lisp.Datagram) (int, error)
	}); ok {
		s.write = w.WriteDatagrams
	} else {
		s.write = func(ds []lisp.Datagram) (int, error) {
			r.writing.Lock()
			defer r.writing.Unlock()
			return r.cfg.Conn.WriteDatagrams(ds)
		}
	}
	return s
}

// work lets the Worker have the datagrams of b that it comes first for. Those
// that are left go to the loop. It reports whether it is to go on.
func (r *Runner) work(s *reader, b *batch, stop <-chan struct{}) bool {
	now := time.Now()
	left := 0
	for i := range b.n {
		d := b.ds[i]
		b.declined[left] = false
		if len(d.Bytes) <= maxDatagram && r.firstFor(lisp.TypeOf(d.Bytes)) == RoleMapServer {
			if s.worker.Step(now, d) {
				r.stats.received.Add(1)
				continue
			}
			b.declined[left] = true
		}
		// The buffer stays in its place: ds and bufs are set anew for each read.
		b.ds[left] = d
		left++
	}
	b.n = left
	out, apply := s.worker.Flush()
	if len(out) > 0 {
		n, err := s.write(out)
		r.sent(out, n, err)
	}
	if apply != nil {
		select {
		case r.applies <- apply:
		case <-stop:
			return false
		}
	}
	return true
}

// firstFor is the role that is offered messages of a type first.
func (r *Runner) firstFor(t lisp.Type) Role {
	for _, role := range routes[t] {
		if r.cores[role] != nil {
			return role
		}
	}
	return numRoles
}
