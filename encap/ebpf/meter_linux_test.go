package ebpf

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/mapcache"
)

// meteredTwin is a node whose packets are given to its programs one by one.
func meteredTwin(t testing.TB, change func(*nodeConfig)) *twin {
	t.Helper()
	cfg := nodeConfig{
		eids: []string{"10.1.0.1/16"}, metered: true,
		locals: []mapcache.Local{{Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
	}
	change(&cfg)
	return newTwin(t, cfg, cfg.encap)
}

// send has the kernel encapsulate a packet, receive decapsulate one.
func (tw *twin) send(t testing.TB, dst string) {
	t.Helper()
	verdict, _ := tw.run(t, tw.kernel.objs.EncapLan, ethernet(spec{src: "10.1.0.1", dst: dst, payload: make([]byte, 72)}.build()))
	require.EqualValues(t, redirected, verdict)
}

func (tw *twin) receive(t testing.TB, src string) {
	t.Helper()
	inner := spec{src: src, dst: "10.1.0.1", payload: make([]byte, 22)}.build()
	verdict, _ := tw.run(t, tw.kernel.objs.DecapEther, ethernet(spec{src: "198.51.100.2", dst: "198.51.100.1"}.data([8]byte{}, inner)))
	require.EqualValues(t, redirected, verdict)
}

// counted asks for what is new, and returns what the entry of exactly k has.
func (tw *twin) counted(t testing.TB, k mapcache.Key) (out, in encap.Counter) {
	t.Helper()
	tw.kernel.Usage(func(u mapcache.Usage) { tw.cache.AddUsage(time.Now(), u) })
	e, ok := tw.cache.Get(k)
	require.True(t, ok, k)
	return encap.Counter{Packets: e.PacketsOut, Octets: e.OctetsOut}, encap.Counter{Packets: e.PacketsIn, Octets: e.OctetsIn}
}

// onCPU has what follows run on one CPU.
func onCPU(t *testing.T, cpu int) {
	t.Helper()
	var set unix.CPUSet
	set.Set(cpu)
	require.NoError(t, unix.SchedSetaffinity(0, &set))
}

// TestMeter: entries behind one locator have counters of their own, on every CPU, with
// sources checked and not, and those of the locator are their sum.
func TestMeter(t *testing.T) {
	for _, check := range []encap.SourceCheck{encap.SourceUnchecked, encap.SourceStrict} {
		t.Run(fmt.Sprintf("source check %d", check), func(t *testing.T) {
			tw := meteredTwin(t, func(c *nodeConfig) {
				c.encap = func(c *encap.Config) { c.SourceCheck = check }
				c.mappings = []mapcache.Mapping{
					mapTo(0, "10.2.0.1/32", "198.51.100.2", mapcache.FormatLISP), mapTo(0, "10.2.0.0/16", "198.51.100.2", mapcache.FormatLISP),
				}
			})
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var all unix.CPUSet
			require.NoError(t, unix.SchedGetaffinity(0, &all))
			defer func() { require.NoError(t, unix.SchedSetaffinity(0, &all)) }()
			n := 0
			for cpu := range 1024 {
				if !all.IsSet(cpu) {
					continue
				}
				onCPU(t, cpu)
				n++
				tw.send(t, "10.2.0.1")
				tw.send(t, "10.2.0.7")
				tw.send(t, "10.2.0.8")
				tw.receive(t, "10.2.0.1")
			}
			require.NoError(t, unix.SchedSetaffinity(0, &all))
			tw.receive(t, "10.2.9.9")
			out, in := tw.counted(t, mapcache.HostKey(0, addr("10.2.0.1")))
			assert.Equal(t, encap.Counter{Packets: uint64(n), Octets: uint64(100 * n)}, out)
			assert.Equal(t, encap.Counter{Packets: uint64(n), Octets: uint64(50 * n)}, in)
			out, in = tw.counted(t, mapcache.MakeKey(0, prefix("10.2.0.0/16")))
			assert.Equal(t, encap.Counter{Packets: uint64(2 * n), Octets: uint64(200 * n)}, out)
			assert.Equal(t, encap.Counter{Packets: 1, Octets: 50}, in)
			l, ok := tw.cache.LocatorInfo(mapcache.Locator{Addr: addr("198.51.100.2")})
			require.True(t, ok)
			assert.Equal(t, [4]uint64{uint64(3 * n), uint64(300 * n), uint64(n + 1), uint64(50 * (n + 1))}, [4]uint64{l.PacketsOut, l.OctetsOut, l.PacketsIn, l.OctetsIn})
		})
	}
}

// An entry that comes with the number of one that is gone begins at 0, also if nobody
// asked for what was counted for that.
func TestMeterNumberUsedAgain(t *testing.T) {
	first := mapTo(0, "10.2.0.1/32", "198.51.100.2", mapcache.FormatLISP)
	tw := meteredTwin(t, func(c *nodeConfig) { c.mappings = []mapcache.Mapping{first} })
	id := tw.kernel.mirror.entries[makeKey(first.Key)].id
	for range 3 {
		tw.send(t, "10.2.0.1")
		tw.receive(t, "10.2.0.1")
	}
	now := time.Now()
	require.True(t, tw.cache.Remove(now, first.Key))
	changes := tw.cache.Changes()
	tw.kernel.mu.Lock()
	require.NoError(t, tw.kernel.apply(now, changes))
	next := mapTo(0, "10.3.0.1/32", "198.51.100.2", mapcache.FormatLISP)
	next.TTL = time.Hour
	require.NoError(t, tw.cache.Insert(now, next))
	tw.cache.Publish()
	require.NoError(t, tw.kernel.apply(now.Add(idRest), tw.cache.Changes()))
	tw.kernel.mu.Unlock()
	require.Equal(t, id, tw.kernel.mirror.entries[makeKey(next.Key)].id, "used again")
	out, in := tw.counted(t, next.Key)
	assert.Zero(t, out)
	assert.Zero(t, in)
	tw.send(t, "10.3.0.1")
	out, _ = tw.counted(t, next.Key)
	assert.Equal(t, encap.Counter{Packets: 1, Octets: 100}, out)
}

// Where there are more CPUs than counters, several share some.
func TestMeterShared(t *testing.T) {
	for _, c := range []struct {
		entries uint32
		cpus    int
		want    int
	}{{room(encap.DefaultHoldTotal), 2, 2}, {room(DefaultMaxEntries), 64, 13}, {room(1 << 20), 64, 1}, {1 << 27, 4, 1}} {
		assert.Equal(t, c.want, meterCPUs(c.entries, c.cpus), "%+v", c)
	}
	if runtime.NumCPU() < 2 {
		return
	}
	tw := meteredTwin(t, func(c *nodeConfig) {
		c.mappings = []mapcache.Mapping{mapTo(0, "10.2.0.1/32", "198.51.100.2", mapcache.FormatLISP)}
		c.ebpf = func(c *Config) { c.MaxEntries = 1 << 20 } // 36 MB for each
	})
	require.Equal(t, 1, tw.kernel.meter.cpus)
	for range 5 {
		tw.send(t, "10.2.0.1")
		tw.receive(t, "10.2.0.1")
	}
	out, in := tw.counted(t, mapcache.HostKey(0, addr("10.2.0.1")))
	assert.Equal(t, encap.Counter{Packets: 5, Octets: 500}, out)
	assert.Equal(t, encap.Counter{Packets: 5, Octets: 250}, in)
}

// An entry counts as used by what leaves, not by what arrives.
func TestMeterUse(t *testing.T) {
	m := mapTo(0, "10.2.0.1/32", "198.51.100.2", mapcache.FormatLISP)
	tw := meteredTwin(t, func(c *nodeConfig) { c.mappings = []mapcache.Mapping{m} })
	var used []netip.Prefix
	usage := func() {
		used = nil
		tw.kernel.Usage(func(u mapcache.Usage) {
			if u.Key.Prefix.IsValid() && u.PacketsOut > 0 {
				used = append(used, u.Key.Prefix)
			}
		})
	}
	tw.receive(t, "10.2.0.1")
	usage()
	assert.Empty(t, used)
	tw.send(t, "10.2.0.1")
	usage()
	assert.Equal(t, []netip.Prefix{m.Prefix}, used)
	usage()
	assert.Empty(t, used)
}
