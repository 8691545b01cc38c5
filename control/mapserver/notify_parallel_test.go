package mapserver

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestAcksInParallel: Workers verify Map-Notify-Acks and Map-Registers while the
// writer moves mappings to and fro; in the end everybody has been told.
func TestAcksInParallel(t *testing.T) {
	const workers, eids, rounds = 3, 16, 12
	b := newBench(t, func(c *Config) {
		c.RatePerSource, c.RateTotal = -1, -1
		c.Sites[0].Replay = ReplayOff // the Map-Registers of one xTR get out of order here
	})
	// Each Worker has a goroutine, as with sockets of their own.
	in := make(chan lisp.Datagram, 1<<12)
	updates := make(chan *Update, 1<<12)
	var inFlight sync.WaitGroup
	var done sync.WaitGroup
	for range workers {
		w := b.s.NewWorker()
		done.Go(func() {
			for d := range in {
				if u := w.Handle(b.now, d).Update; u != nil {
					inFlight.Add(1)
					updates <- u
				}
				inFlight.Done()
			}
		})
	}
	put := func(from netip.AddrPort, msg []byte) {
		inFlight.Add(1)
		in <- lisp.Datagram{Local: msAddr, Remote: from, Bytes: msg}
	}
	unsolicited := 0
	settle := func() {
		idle := make(chan struct{})
		go func() { inFlight.Wait(); close(idle) }()
		for {
			select {
			case u := <-updates:
				b.s.Apply(b.now, u)
				for _, d := range b.drain() {
					m := parse[*lisp.MapNotify](t, d.Bytes)
					if m.Nonce < 1<<32 { // one that answers
						continue
					}
					unsolicited++
					put(d.Remote, ackOf(t, m, key1))
				}
				inFlight.Done()
			case <-idle:
				return
			}
		}
	}
	for round := range rounds {
		from, x := etr1, xtr1
		if round%2 == 1 {
			from, x = etr2, xtr2
		}
		for i := range eids {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24)
			put(from, register(t, key1, record(p.String(), 10, from.Addr().String()), withXTR(x), withoutNotify))
		}
		settle()
	}
	close(in)
	done.Wait()
	b.notNotifying()
	st := b.s.Stats()
	assert.EqualValues(t, eids*(rounds-1), st.Moves)
	assert.EqualValues(t, unsolicited, st.NotifyAcks)
	assert.GreaterOrEqual(t, unsolicited, rounds-1)
	b.advance(time.Minute)
	assert.Empty(t, b.drain())
}

// TestAckTwiceInParallel: a Map-Notify-Ack that came twice, and that two Workers
// verified before the writer saw it, does not acknowledge the message after it.
func TestAckTwiceInParallel(t *testing.T) {
	b := newBench(t)
	for _, eid := range []string{"10.1.0.0/16", "10.2.0.0/16"} {
		b.registers(etr1, record(eid, 10, "192.0.2.11"), withXTR(xtr1))
	}
	first := unsolicited(t, b.put(etr2, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2), withoutNotify)), etr1, key1)
	assert.Empty(t, b.put(etr2, register(t, key1, record("10.2.0.0/16", 10, "192.0.2.12"), withXTR(xtr2), withoutNotify)), "one at a time")
	var twice []*Update
	for range 2 {
		u := b.s.NewWorker().Handle(b.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: ackOf(t, first, key1)}).Update
		require.NotNil(t, u)
		twice = append(twice, u)
	}
	b.s.Apply(b.now, twice[0])
	second := unsolicited(t, b.drain(), etr1, key1)
	b.s.Apply(b.now, twice[1])
	b.advance(notifyInterval)
	assert.Equal(t, second, unsolicited(t, b.drain(), etr1, key1), "again, since nobody acknowledged it")
	assert.EqualValues(t, 1, b.s.Stats().NotifyAcks)
}

// TestPublicationAckTwiceInParallel: likewise of a publication.
func TestPublicationAckTwiceInParallel(t *testing.T) {
	b := pubSub(t)
	b.put(itr, request(t, itr, "10.1.0.0/16", subscribing))
	ack := lisp.MapNotifyAck(*publication(t, b.moveTo("192.0.2.77")))
	msg, err := ack.AppendSigned(nil, key1)
	require.NoError(t, err)
	var twice []*Update
	for range 2 {
		u := b.s.NewWorker().Handle(b.now, lisp.Datagram{Local: msAddr, Remote: itr, Bytes: msg}).Update
		require.NotNil(t, u)
		twice = append(twice, u)
	}
	b.s.Apply(b.now, twice[0])
	b.drain()
	second := publication(t, b.moveTo("192.0.2.78"))
	b.s.Apply(b.now, twice[1])
	b.advance(notifyInterval)
	assert.Equal(t, second, publication(t, b.drain()), "again, since nobody acknowledged it")
}
