package mapcache_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Readers forward while the writer changes everything. Each prefix i is only ever
// mapped to locators with port 5000+i, so a reader can tell a wrong answer; the
// race detector tells the rest.
func TestReadersAndWriter(t *testing.T) {
	t.Parallel()
	const prefixes, readers, rounds = 64, 3, 3000
	c := mapcache.New(mapcache.Config{MaxEntries: 48, IdleTime: time.Second})
	c.Publish()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wrong := make(chan mapcache.Decision, readers)
	var answered [readers]atomic.Int64
	for n := range readers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 0))
			for {
				select {
				case <-stop:
					return
				default:
				}
				v := c.View()
				for range 32 {
					i := r.IntN(prefixes)
					d := v.Forward(uint32(i%3), addr4(i<<8|r.IntN(256)), r.Uint32())
					if d.Verdict != mapcache.Encapsulate {
						continue
					}
					answered[n].Add(1)
					if int(d.Locator.Port) != 5000+i || d.EntryID == 0 || v.Locator(d.LocatorID) != d.Locator {
						wrong <- d
						return
					}
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(9, 9))
	now := t0
	served := func() bool { // every reader has had some answers
		for i := range answered {
			if answered[i].Load() < 100 && len(wrong) == 0 {
				return false
			}
		}
		return true
	}
	for round := 0; round < rounds || !served(); round++ {
		i := r.IntN(prefixes)
		m := mapcache.Mapping{
			Key:    mapcache.Key{IID: uint32(i % 3), Prefix: mapcache.HostKey(0, addr4(i<<8)).Prefix},
			TTL:    time.Duration(1+r.IntN(20)) * time.Second,
			Action: lisp.ActionNativelyForward,
		}
		m.Prefix, _ = m.Prefix.Addr().Prefix(24)
		for j := range r.IntN(4) {
			rl := rloc("192.0.2.1", uint8(1+r.IntN(2)), uint8(r.IntN(100)))
			rl.Addr, rl.Port = addr4(1<<20+j), uint16(5000+i)
			m.RLOCs = append(m.RLOCs, rl)
		}
		switch r.IntN(6) {
		case 0:
			c.Remove(now, m.Key)
		case 1:
			now = now.Add(time.Second)
			c.Advance(now)
		case 2:
			for _, rl := range m.RLOCs {
				c.SetReachable(rl.Locator, r.IntN(2) == 0)
			}
		default:
			_ = c.Insert(now, m) // full at times
		}
		c.Publish()
		c.Changes()
	}
	close(stop)
	wg.Wait()
	select {
	case d := <-wrong:
		t.Errorf("wrong answer: %+v", d)
	default:
	}
}

// A View is a snapshot: whatever happens later, it answers as before.
func TestViewDoesNotChange(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	c := mapcache.New(mapcache.Config{MaxChanges: -1})
	insert := func() {
		i := r.IntN(2000)
		m := host(i, positive("10.0.0.0/32", "192.0.2.1", time.Hour))
		m.IID = uint32(i % 2)
		m.RLOCs = twoRLOCs(r.IntN(300))
		m.RLOCs[0].Weight = uint8(1 + r.IntN(100))
		require.NoError(t, c.Insert(t0, m))
	}
	for range 3000 {
		insert()
	}
	c.Publish()
	v := c.View()
	ask := func() (list []mapcache.Decision) {
		for i := range 2000 {
			list = append(list, v.Forward(uint32(i%2), addr4(i), uint32(i)*0x9e3779b1))
		}
		return list
	}
	want := ask()
	for round := range 5 {
		for range 500 {
			insert()
			i := r.IntN(2000)
			c.Remove(t0, mapcache.HostKey(uint32(i%2), addr4(i)))
		}
		c.Publish()
		require.Equal(t, want, ask(), "round %d", round)
	}
}
