package ebpf

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// soakRounds is how many rounds TestSoak has; with the variable in the environment
// it goes on for that long.
const (
	soakRounds = 3
	envSoak    = "XTRKIT_SOAK"
	// churned is how many mappings of its own a round of TestSoak puts in and takes
	// out, in batches.
	churned, churnBatch = 5000, 250
	// probed is how many packets TestSoak sends after each change of a locator.
	probed = 10
)

// resources is what a leak would use up.
type resources struct{ goroutines, files, heap, entries, locators, sets int }

func (n *node) resources(t *testing.T) resources {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	s := n.stats()
	return resources{runtime.NumGoroutine(), len(files), int(m.HeapAlloc), s.Entries, s.Locators, s.Sets}
}

// soak is two nodes under load. moved is how often packets to the EID moving went
// elsewhere.
type soak struct {
	*pair
	n       *node
	probe   net.PacketConn
	locals  []mapcache.Local
	watch   staleWatch
	updates int
	moved   int
}

const moving = "10.80.0.1"

// TestSoak: while the map-cache changes all the time, locators come and go, and
// traffic goes on, each packet that is sent after a change goes where the change
// says; nothing is leaked, the kernel's copy is never out of order, and at the end
// all works as at the start.
func TestSoak(t *testing.T) {
	until := time.Time{}
	if s := os.Getenv(envSoak); s != "" {
		d, err := time.ParseDuration(s)
		require.NoError(t, err)
		until = time.Now().Add(d)
	}
	s := &soak{}
	s.pair = newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, func(i int, c *nodeConfig) {
		if i == 0 {
			s.locals = c.locals
		}
	})
	s.n = s.nodes[0]
	for i := range 2 {
		s.link.B.Host.MustRun("ip", "addr", "add", fmt.Sprintf("%v/24", movingTo(i)), "dev", s.link.B.Name)
	}
	var err error
	s.probe, err = s.link.A.Host.ListenPacket("udp", "10.1.0.1:0")
	require.NoError(t, err)
	defer s.probe.Close()
	work := func() {
		for _, f := range families {
			awaitDelivery(t, s.link.A.Host, f.a)
			awaitDelivery(t, s.link.B.Host, f.b)
			transfer(t, s.link.A.Host, s.link.B.Host, f.a, f.b, 1<<20)
			transfer(t, s.link.B.Host, s.link.A.Host, f.b, f.a, 1<<20)
		}
	}
	work()
	s.watchStale(t)
	s.round(t, 0)
	before, began := s.n.resources(t), time.Now()
	rounds := 1
	for ; rounds <= soakRounds || time.Now().Before(until); rounds++ {
		s.round(t, rounds)
	}
	took := time.Since(began)
	t.Logf("%d rounds in %v, %.0f updates a second, %d moves", rounds, took.Round(time.Second), float64(s.updates)/took.Seconds(), s.moved)
	work()
	s.watch.report(t)
	require.NoError(t, netlab.Eventually(t.Context(), "goroutines to end", func() bool { return s.n.resources(t).goroutines <= before.goroutines }))
	after := s.n.resources(t)
	t.Logf("%+v, then %+v", before, after)
	assert.LessOrEqual(t, after.files, before.files)
	assert.Less(t, after.heap, before.heap+8<<20)
	assert.Equal(t, [3]int{before.entries, before.locators, before.sets}, [3]int{after.entries, after.locators, after.sets})
	st := s.n.stats()
	assert.Zero(t, st.Resyncs)
	assert.False(t, st.AllSlow)
	assert.Zero(t, st.HeldNow)
}

// round is one round of TestSoak.
func (s *soak) round(t *testing.T, n int) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, f := range families { // whether they arrive or not
		c, err := s.link.A.Host.ListenPacket("udp", net.JoinHostPort(f.a, "0"))
		require.NoError(t, err)
		wg.Go(func() {
			defer c.Close()
			b, dst := make([]byte, 1200), net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(f.b), 9))
			for size := 1; ; size = (size + 97) % len(b) {
				select {
				case <-stop:
					return
				default:
					_, _ = c.WriteTo(b[:size], dst)
					_ = s.n.stats()
				}
			}
		})
	}
	// TCP by the locators that stay.
	wg.Go(func() { transfer(t, s.link.A.Host, s.link.B.Host, families[n%2].a, families[n%2].b, 1<<20) })
	for i := 0; i < churned; i += churnBatch {
		s.churn(t, n, i)
		s.move(t)
		up := i/churnBatch%2 == 1 // of the IPv6 locators
		for j := range s.locals {
			s.locals[j].Up = s.locals[j].Addr.Is4() || up
		}
		require.NoError(t, s.link.A.Host.Do(func() error { return s.n.plane.SetLocals(s.locals) }))
	}
	close(stop)
	wg.Wait()
}

// churn puts mappings with one and with two locators in and takes them out.
func (s *soak) churn(t *testing.T, n, first int) {
	t.Helper()
	var keys []mapcache.Key
	for i := first; i < first+churnBatch; i++ {
		eid := fmt.Sprintf("172.16.%d.%d/%d", i>>8, i&0xff, 32-i%2)
		m := mapTo(0, eid, fmt.Sprintf("203.0.113.%d", 1+(i+n)%200), mapcache.FormatLISP)
		m.Prefix = m.Prefix.Masked()
		m.TTL, m.Origin = mapcache.TTLForever, mapcache.OriginStatic
		if i%3 == 0 {
			m.RLOCs = append(m.RLOCs, mapcache.RLOC{Locator: mapcache.Locator{Addr: addr("203.0.113.201")}, Priority: 1, Weight: uint8(1 + n%100)})
		}
		require.NoError(t, s.n.cache.Insert(time.Now(), m))
		keys = append(keys, m.Key)
	}
	s.n.publish(t)
	for _, k := range keys {
		s.n.cache.Remove(time.Now(), k)
	}
	s.n.publish(t)
	s.updates += 2 * churnBatch
}

// movingTo are the locators that an EID moves between.
func movingTo(i int) netip.Addr { return addr(fmt.Sprintf("198.51.100.6%d", i%2)) }

// move gives an EID another locator: packets go there, and none to the one before.
func (s *soak) move(t *testing.T) {
	t.Helper()
	m := mapTo(0, moving+"/32", movingTo(s.moved).String(), mapcache.FormatLISP)
	m.RLOCs[0].Port = movingLocator(s.moved).Port()
	s.watch.begin(s.moved)
	s.n.insert(t, m)
	s.watch.end()
	sent := func() (packets [2]uint64) {
		s.n.plane.Usage(func(u mapcache.Usage) {
			for i := range packets {
				if u.Locator.Addr == movingTo(i) {
					packets[i] += u.PacketsOut
				}
			}
		})
		return packets
	}
	sent()
	for range probed {
		_, err := s.probe.WriteTo([]byte{1}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(moving), 9)))
		require.NoError(t, err)
	}
	got := sent()
	require.Zero(t, got[1-s.moved%2], "move %d", s.moved)
	require.GreaterOrEqual(t, got[s.moved%2], uint64(probed), "move %d", s.moved) // and those of the watch
	s.moved++
}
