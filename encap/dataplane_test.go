package encap

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// numbered returns a packet to dst with a number in its identification field.
func numbered(dst string, n int) []byte {
	return packetSpec{src: eidA4, dst: dst, id: uint16(n), payloadLen: 10}.build()
}

func ids(out []Outgoing) []int {
	var n []int
	for _, o := range out {
		n = append(n, int(binary.BigEndian.Uint16(o.Bytes[8+4:])))
	}
	return n
}

func hostKey(s string) mapcache.Key {
	return mapcache.Key{Prefix: netip.PrefixFrom(addr(s), addr(s).BitLen())}
}

func TestHoldAndRelease(t *testing.T) {
	x := newA(t, &memNet{}, "")
	x.push(numbered(eidB4, 1), numbered("10.3.0.1", 2), numbered(eidB4, 3))
	x.push(numbered(eidB4, 4))
	assert.Empty(t, x.underlay.take())

	// The first miss of each destination wakes the control plane, and both are
	// pending for as long as it takes.
	assert.Equal(t, mapcache.Discovery{Kind: mapcache.DiscoveryMiss, Key: hostKey(eidB4)}, <-x.Discoveries())
	assert.Equal(t, mapcache.Discovery{Kind: mapcache.DiscoveryMiss, Key: hostKey("10.3.0.1")}, <-x.Discoveries())
	assert.Empty(t, x.Discoveries())
	for range 2 {
		assert.Equal(t, []mapcache.Key{hostKey(eidB4), hostKey("10.3.0.1")}, x.PendingMisses(nil))
	}
	assert.EqualValues(t, 4, x.Stats().Held)
	assert.Equal(t, 4, x.Stats().HeldNow)
	assert.Equal(t, 2, x.Stats().HeldEIDs)

	// A change that covers neither lets nothing go; one that covers lets all
	// go, in order.
	x.learn(t, 0, "10.9.0.0/16", rlocB4)
	assert.Empty(t, x.underlay.take())
	x.learn(t, 0, "10.2.0.0/16", rlocB4)
	out := x.underlay.take()
	assert.Equal(t, []int{1, 3, 4}, ids(out))
	for _, o := range out {
		assert.Equal(t, netip.AddrPortFrom(addr(rlocB4), 4341), o.Remote)
	}
	assert.Equal(t, []mapcache.Key{hostKey("10.3.0.1")}, x.PendingMisses(nil))
	x.learn(t, 0, "10.3.0.0/16", rlocB6)
	assert.Equal(t, []int{2}, ids(x.underlay.take()))
	assert.Empty(t, x.PendingMisses(nil))
	assert.EqualValues(t, 4, x.Stats().Released)
	assert.Zero(t, x.Stats().HeldNow)
	assert.EqualValues(t, 4, x.Stats().Encapsulated.Packets)
	assert.Empty(t, x.drops())
}

// What was held goes wherever the mapping says: native, or nowhere.
func TestReleaseElsewhere(t *testing.T) {
	x := newA(t, &memNet{}, "")
	x.push(numbered("10.3.0.1", 1), numbered("10.4.0.1", 2), numbered("10.5.0.1", 3))
	x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.3.0.0/16")}, TTL: time.Hour, Action: lisp.ActionNativelyForward})
	x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.4.0.0/16")}, TTL: time.Hour, Action: lisp.ActionDropNoReason})
	assert.Len(t, x.native.sent, 1)
	assert.Equal(t, map[DropReason]uint64{DropAction: 1}, x.drops())
	_, _, _, ok := x.icmpError()
	assert.True(t, ok)
	assert.Equal(t, []mapcache.Key{hostKey("10.5.0.1")}, x.PendingMisses(nil))
}

// A packet that finds a mapping which Apply has not been told of yet must not
// overtake those that are held.
func TestReleaseOrder(t *testing.T) {
	x := newA(t, &memNet{}, "")
	x.push(numbered(eidB4, 1), numbered(eidB4, 2))

	// Published between two batches, before Apply.
	require.NoError(t, x.cache.Insert(x.now, mapcache.Mapping{
		Key: mapcache.Key{Prefix: prefix("10.2.0.0/16")}, TTL: time.Hour,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rlocB4)}, Priority: 1, Weight: 1}},
	}))
	x.cache.Publish()
	x.push(numbered(eidB4, 3))
	assert.Equal(t, []int{1, 2, 3}, ids(x.underlay.take()))
	require.NoError(t, x.Apply(x.cache.Changes()))
	assert.Empty(t, x.underlay.take())

	// Published within a batch.
	e := newEgress(x.Forwarder)
	e.begin()
	push := func(b []byte) { e.packet(x.overlays[0], append(make([]byte, Headroom), b...), len(b)) }
	push(numbered("10.3.0.1", 4))
	require.NoError(t, x.cache.Insert(x.now, mapcache.Mapping{
		Key: mapcache.Key{Prefix: prefix("10.3.0.0/16")}, TTL: time.Hour,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rlocB4)}, Priority: 1, Weight: 1}},
	}))
	x.cache.Publish()
	push(numbered("10.3.0.1", 5))
	e.flush()
	assert.Equal(t, []int{4, 5}, ids(x.underlay.take()))
	assert.Empty(t, x.PendingMisses(nil))
}

// A packet may know a mapping that has gone by the time it would let the held ones
// go: they wait on.
func TestReleaseAfterTheMappingIsGone(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4)
	e := newEgress(x.Forwarder)
	e.begin()
	x.cache.Remove(x.now, hostKey(eidB4))
	x.cache.Publish()
	require.NoError(t, x.Apply(x.cache.Changes()))
	x.push(numbered(eidB4, 1))
	e.packet(x.overlays[0], append(make([]byte, Headroom), numbered(eidB4, 2)...), len(numbered(eidB4, 2)))
	e.flush()
	assert.Equal(t, []int{2}, ids(x.underlay.take()))
	assert.Empty(t, x.drops())
	assert.Equal(t, []mapcache.Key{hostKey(eidB4)}, x.PendingMisses(nil))
	x.learn(t, 0, eidB4+"/32", rlocB4)
	assert.Equal(t, []int{1}, ids(x.underlay.take()))
	assert.EqualValues(t, 1, x.Stats().Released)
}

// Held packets are dropped when their time is over, by the Forwarder itself, and
// their sources are told.
func TestHoldExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newA(t, &memNet{}, "")
		x.run(t)
		begin := time.Now()
		x.device.send(numbered(eidB4, 1))
		<-x.Discoveries()
		time.Sleep(time.Second)
		x.device.send(numbered("10.3.0.1", 2))
		<-x.Discoveries()
		synctest.Wait()
		assert.Len(t, x.PendingMisses(nil), 2)

		<-x.device.out
		assert.Equal(t, DefaultHoldTime, time.Since(begin))
		assert.Equal(t, []mapcache.Key{hostKey("10.3.0.1")}, x.PendingMisses(nil))
		<-x.device.out
		assert.Equal(t, DefaultHoldTime+time.Second, time.Since(begin))
		assert.Empty(t, x.PendingMisses(nil))
		assert.Equal(t, map[DropReason]uint64{DropHoldExpired: 2}, x.drops())

		// The next packet starts again.
		x.device.send(numbered(eidB4, 3))
		<-x.Discoveries()
		assert.Equal(t, []mapcache.Key{hostKey(eidB4)}, x.PendingMisses(nil))
		time.Sleep(3 * time.Second)
		x.learn(t, 0, "10.2.0.0/16", rlocB4)
		assert.Equal(t, []int{3}, ids(x.underlay.take()))
	})
}

// PendingMisses itself forgets what is too old, for who asks without Run.
func TestPendingMissesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newA(t, &memNet{}, "")
		x.push(numbered(eidB4, 1))
		time.Sleep(DefaultHoldTime)
		assert.Empty(t, x.PendingMisses(nil))
	})
}

func TestHoldBounds(t *testing.T) {
	x := newA(t, &memNet{}, "")
	for i := range DefaultHoldPerEID + 5 {
		x.push(numbered(eidB4, i))
	}
	assert.Equal(t, map[DropReason]uint64{DropHoldFull: 5}, x.drops())
	x.learn(t, 0, "10.2.0.0/16", rlocB4)
	assert.Equal(t, 5, ids(x.underlay.take())[0], "the oldest went")

	// A scan of many destinations keeps to the total.
	for i := range 3 * DefaultHoldTotal {
		x.push(packetSpec{src: eidA4, dst: netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}).String()}.build())
	}
	assert.Equal(t, DefaultHoldTotal, x.Stats().HeldNow)
	assert.Len(t, x.PendingMisses(nil), DefaultHoldTotal)

	none := newA(t, &memNet{}, "", func(c *nodeConfig) { c.change = func(c *Config) { c.HoldTime = -1 } })
	none.push(numbered(eidB4, 1))
	assert.Equal(t, map[DropReason]uint64{DropHoldFull: 1}, none.drops())
	assert.Empty(t, none.PendingMisses(nil))
}

func TestSetLocals(t *testing.T) {
	var n memNet
	x := newA(t, &n, rlocB4)
	kept := x.locals.Load().paths[0]

	// A locator that stays keeps its sockets.
	require.NoError(t, x.SetLocals([]mapcache.Local{
		{IfIndex: 9, Addr: addr("192.0.2.50"), Priority: 2, Weight: 1, Up: true},
		{IfIndex: 1, Addr: addr(rlocA4), Priority: 1, Weight: 1, Up: true},
	}))
	assert.Same(t, kept, x.locals.Load().paths[1])
	x.push(numbered(eidB4, 1))
	require.Len(t, x.underlay.take(), 1)

	// A locator that is down is still ours, and not used.
	require.NoError(t, x.SetLocals([]mapcache.Local{{IfIndex: 1, Addr: addr(rlocA4), Priority: 1, Weight: 1}}))
	x.push(numbered(eidB4, 1))
	assert.Equal(t, map[DropReason]uint64{DropNoSource: 1}, x.drops())
	assert.Len(t, x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: eidA4}.build()))), 2, "ICMP error and packet")

	// One that can't be opened is down, the others work.
	x.underlay.openErr = errors.New("no such address")
	err := x.SetLocals([]mapcache.Local{{IfIndex: 1, Addr: addr(rlocA4), Up: true}})
	assert.ErrorContains(t, err, "no such address")
	assert.ErrorContains(t, err, rlocA4)
	assert.False(t, x.locals.Load().locals[0].Up)
	x.underlay.openErr = nil

	// RFC 9301-5.4-14: the source is never a multicast address.
	for _, bad := range []netip.Addr{addr("224.0.0.1"), addr("0.0.0.0"), {}} {
		assert.Error(t, x.SetLocals([]mapcache.Local{{IfIndex: 1, Addr: bad, Up: true}, {IfIndex: 1, Addr: addr(rlocA4), Up: true}}))
		assert.True(t, x.locals.Load().locals[1].Up)
		assert.False(t, x.locals.Load().locals[0].Up)
	}

	// A locator with an interface wants a source on it.
	require.NoError(t, x.SetLocals(locals(rlocA4, "192.0.2.50", rlocA6)))
	x.insert(t, mapcache.Mapping{Key: hostKey(eidB4), TTL: time.Hour, RLOCs: []mapcache.RLOC{
		{Locator: mapcache.Locator{Addr: addr(rlocB4), IfIndex: 2}, Priority: 1, Weight: 1},
	}})
	x.push(numbered(eidB4, 7))
	require.Len(t, x.underlay.take(), 1)
}

func TestUsage(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4)
	usage := func() (us []mapcache.Usage) {
		x.Usage(func(u mapcache.Usage) { us = append(us, u) })
		return us
	}
	assert.Empty(t, usage())
	x.push(numbered(eidB4, 1), numbered(eidB4, 2))
	x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: eidA4}.build())))
	x.pull(from("203.0.113.9", rlocA4, encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: eidA4}.build())))
	us := usage()
	require.Len(t, us, 2)
	if us[0].Locator.Addr != addr(rlocB4) {
		us[0], us[1] = us[1], us[0]
	}
	assert.False(t, us[0].LastUsed.IsZero())
	us[0].LastUsed = time.Time{}
	assert.Equal(t, mapcache.Usage{
		Locator:    mapcache.Locator{Addr: addr(rlocB4), Port: 4341},
		PacketsOut: 2, OctetsOut: 76, PacketsIn: 1, OctetsIn: 28,
	}, us[0])
	assert.Equal(t, addr("203.0.113.9"), us[1].Locator.Addr)
	assert.Empty(t, usage(), "only what is new")
	x.push(numbered(eidB4, 3))
	us = usage()
	require.Len(t, us, 1)
	assert.EqualValues(t, 1, us[0].PacketsOut)
	assert.Zero(t, us[0].PacketsIn)
	assert.Len(t, x.Stats().Locators, 2)
}

func TestLocatorCounters(t *testing.T) {
	c := newLocatorCounters()
	assert.Zero(t, c.changes.Load())
	l := func(i int) *mapcache.Locator {
		return &mapcache.Locator{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Port: 4341}
	}
	a := c.forID(3, l(1))
	assert.Same(t, a, c.forID(3, l(1)))
	assert.Same(t, a, c.forID(1000, l(1)), "known by another id")
	b := c.forID(3, l(2))
	assert.NotSame(t, a, b, "the id was used again")
	assert.Same(t, b, c.forID(3, l(2)))
	assert.Same(t, a, c.forSource(l(1).Addr))
	assert.Same(t, a, c.forID(1<<30, l(1)), "an id beyond the table")
	assert.Same(t, a, c.forID(200_000, l(1)))
	assert.Same(t, a, (*c.byID.Load())[200_000].Load(), "a large id is found without a lock")
	(*c.byID.Load())[200_001].Store(c.other)
	assert.Same(t, c.other, c.forID(200_001, l(3)), "and so is one too many")
	for i := range maxSources + 10 {
		c.forSource(l(i).Addr)
	}
	assert.Same(t, c.other, c.forSource(l(1<<20).Addr), "sources are bounded")
	assert.Len(t, c.byLocator, maxSources)
	assert.NotSame(t, c.other, c.forID(5, l(1<<20)), "locators of ours are not pushed out by sources")
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.forID(3, l(2)); c.forSource(a.locator.Addr) }))
}

func TestForwarderConfig(t *testing.T) {
	view := func() *mapcache.View { return nil }
	dev := []Overlay{{Device: newMemDevice("x"), EIDs: []netip.Prefix{prefix("10.0.0.0/8")}}}
	u := (&memNet{}).node()
	for _, cfg := range []Config{
		{},
		{Overlays: dev, View: view},
		{Overlays: dev, Underlay: u},
		{View: view, Underlay: u},
		{Overlays: dev, View: view, Underlay: u, MTU: 100},
	} {
		_, err := NewForwarder(cfg)
		assert.ErrorContains(t, err, "encap: ")
	}
	f, err := NewForwarder(Config{Overlays: dev, View: view, Underlay: u, MTU: 1400})
	require.NoError(t, err)
	assert.Equal(t, 1400, f.linkMTU(&memPath{u: u}))
	u.mtu = 1300
	assert.Equal(t, 1300, f.linkMTU(&memPath{u: u}))
	u.mtu = 0
	assert.Equal(t, 1400, f.linkMTU(&memPath{u: u}))
	f.cfg.MTU = 0
	assert.Equal(t, 1500, f.linkMTU(&memPath{u: u})) // RFC 9300-7.1-5
}

func TestLifecycle(t *testing.T) {
	t.Run("close without run", func(t *testing.T) {
		x := newA(t, &memNet{}, "")
		require.NoError(t, x.Close())
		require.NoError(t, x.Close())
		assert.Error(t, x.Run(t.Context()))
		assert.ErrorIs(t, x.SetLocals(locals(rlocA4)), net.ErrClosed)
	})
	t.Run("context ends run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x := newA(t, &memNet{}, "")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.NoError(t, x.Run(ctx))
			assert.Error(t, x.Run(ctx))
			_, open := <-x.device.closed
			assert.False(t, open)
		})
	})
	t.Run("close ends run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x := newA(t, &memNet{}, "")
			var wg sync.WaitGroup
			wg.Go(func() { assert.NoError(t, x.Run(t.Context())) })
			synctest.Wait()
			for range 3 {
				wg.Go(func() { assert.NoError(t, x.Close()) })
			}
			wg.Wait()
		})
	})
	t.Run("device fails", func(t *testing.T) {
		x := newA(t, &memNet{}, "", func(c *nodeConfig) {
			c.change = func(c *Config) { c.Overlays[0].Device = brokenDevice{c.Overlays[0].Device} }
		})
		err := x.Run(t.Context())
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.ErrorContains(t, err, "lmn0")
	})
	t.Run("device closed by someone else", func(t *testing.T) {
		x := newA(t, &memNet{}, "")
		x.device.Close()
		assert.ErrorIs(t, x.Run(t.Context()), os.ErrClosed)
	})
	t.Run("receiver fails", func(t *testing.T) {
		x := newA(t, &memNet{}, "")
		x.underlay.Close()
		assert.ErrorIs(t, x.Run(t.Context()), net.ErrClosed)
	})
}

type brokenDevice struct{ Device }

func (brokenDevice) Read([][]byte, []int, int) (int, error) { return 0, io.ErrUnexpectedEOF }

// Readers of statistics, locator changes, cache churn and packets at once: for
// the race detector.
func TestConcurrency(t *testing.T) {
	var n memNet
	a := newA(t, &n, "")
	b := newNode(t, &n, nodeConfig{eids: []string{"10.2.0.0/16"}, rlocs: []string{rlocB4, rlocB6}})
	b.learn(t, 0, "10.1.0.0/16", rlocA4)
	a.run(t)
	b.run(t)
	var wg sync.WaitGroup
	const rounds = 200
	wg.Go(func() {
		for i := range rounds {
			a.device.send(numbered(netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}).String(), i))
		}
	})
	wg.Go(func() {
		for range rounds {
			_ = a.Stats()
			a.Usage(func(mapcache.Usage) {})
			_ = a.SetLocals(locals(rlocA4, rlocA6))
			_ = a.SetLocals(locals(rlocA4))
		}
	})
	wg.Go(func() { // the control plane
		for i := range rounds {
			for _, k := range a.PendingMisses(nil) {
				rloc := []string{rlocB4, rlocB6}[i%2]
				_ = a.cache.Insert(a.now, mapcache.Mapping{Key: k, TTL: time.Hour, RLOCs: []mapcache.RLOC{
					{Locator: mapcache.Locator{Addr: addr(rloc)}, Priority: 1, Weight: 1},
				}})
			}
			a.cache.Publish()
			_ = a.Apply(a.cache.Changes())
		}
	})
	wg.Wait()
	a.learn(t, 0, "10.2.0.0/16", rlocB4)
	a.learn(t, 0, "10.2.1.0/24", rlocB4)
	require.NoError(t, a.SetLocals(locals(rlocA4)))
	a.device.send(numbered("10.2.1.1", 9999))
	for {
		got := b.device.next(t)
		if binary.BigEndian.Uint16(got[4:]) == 9999 {
			break
		}
	}
}

func TestForwarderAllocations(t *testing.T) {
	for _, rloc := range []string{rlocB4, rlocB6} {
		t.Run(rloc, func(t *testing.T) {
			x := newA(t, &memNet{}, "", func(c *nodeConfig) {
				c.change = func(c *Config) {
					c.Underlay = sink{c.Underlay.(*memUnderlay)}
					c.Overlays[0].Device = sinkDevice{c.Overlays[0].Device}
				}
			})
			x.learn(t, 0, eidB4+"/32", rloc)
			x.learn(t, 0, eidB6+"/128", rloc)
			e := x.metered()
			var bufs [][]byte
			for _, spec := range []packetSpec{
				{src: eidA4, dst: eidB4, payloadLen: 100},
				{src: eidA6, dst: eidB6, payloadLen: 100},
				{src: eidA4, dst: eidB4, payloadLen: 3000}, // cut
			} {
				bufs = append(bufs, append(make([]byte, Headroom), spec.build()...))
			}
			out := func() {
				e.begin()
				for _, b := range bufs {
					e.packet(x.overlays[0], b, len(b)-Headroom)
				}
				e.flush()
			}
			for range 2 { // without a destination cache and with one
				for range 10 {
					out()
				}
				assert.Zero(t, testing.AllocsPerRun(100, out))
				e.destinations = new(mapcache.DestinationCache)
			}

			g := newIngress(x.Forwarder, x.underlay)
			var batch []Incoming
			for _, spec := range []packetSpec{
				{src: eidB4, dst: eidA4, payloadLen: 100}, {src: eidB6, dst: eidA6, payloadLen: 100, ttl: 255, tos: 2},
			} {
				in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, spec.build()))
				in.TOS = ecnECT0
				batch = append(batch, in)
			}
			in := func() { g.receive(batch) }
			for range 10 {
				in()
			}
			assert.Zero(t, testing.AllocsPerRun(100, in))
			assert.Empty(t, x.drops())
		})
	}
}

// sink is an Underlay that takes everything and keeps nothing.
type sink struct{ *memUnderlay }

func (s sink) Open(l mapcache.Local) (Path, error) { return sinkPath{}, nil }

type sinkPath struct{}

func (sinkPath) Send(out []Outgoing) bool {
	for i := range out {
		out[i].Err = nil
	}
	return true
}
func (sinkPath) MTU() int               { return 1500 }
func (sinkPath) PathMTU(netip.Addr) int { return 1500 }
func (sinkPath) Close() error           { return nil }

type sinkDevice struct{ Device }

func (sinkDevice) Write(bufs [][]byte, offset int) (int, error) { return len(bufs), nil }

func TestDropReasonNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range numDropReasons {
		assert.NotEmpty(t, r.String())
		assert.False(t, seen[r.String()], r.String())
		seen[r.String()] = true
	}
	assert.Equal(t, "unknown", DropReason(200).String())
}

// Each queue of a device is read, and what arrives is spread over them.
func TestQueues(t *testing.T) {
	var n memNet
	second := newMemDevice("lmn0")
	x := newA(t, &n, rlocB4, func(c *nodeConfig) {
		c.change = func(c *Config) { c.Overlays[0].Queues = []Device{second} }
	})
	x.run(t)
	for i, d := range []*memDevice{x.device, second} {
		d.send(numbered(eidB4, i))
		require.Eventually(t, func() bool { return x.Stats().Encapsulated.Packets == uint64(i+1) }, waitTime, time.Millisecond)
	}
	assert.Equal(t, []int{0, 1}, ids(x.underlay.take()))
	in := packetSpec{src: eidB4, dst: eidA4, payloadLen: 5}.build()
	for i, d := range []*memDevice{x.device, second, x.device} {
		g := newIngress(x.Forwarder, x.underlay)
		g.index = i
		g.receive([]Incoming{from(rlocB4, rlocA4, encapsulated(0, 0, 0, in))})
		assert.Equal(t, in, <-d.out)
	}
	cfg := x.cfg
	cfg.Overlays = []Overlay{{Device: x.device, Queues: []Device{nil}, EIDs: []netip.Prefix{prefix("10.0.0.0/8")}}}
	_, err := NewForwarder(cfg)
	assert.Error(t, err)
}
