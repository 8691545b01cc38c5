package ebpf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// pinDir is a directory in a BPF file system, which is mounted by who pins first.
func pinDir(t *testing.T) string {
	t.Helper()
	mount := filepath.Join(t.TempDir(), "bpf")
	t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
	return filepath.Join(mount, "xtrkit")
}

// next makes a Dataplane like that of a node, as the next process would.
func (n *node) next(t *testing.T, change func(*Config)) *Dataplane {
	t.Helper()
	c := n.kernel.cfg
	change(&c)
	var d *Dataplane
	require.NoError(t, n.host.Do(func() (err error) {
		d, err = New(c)
		return err
	}))
	return d
}

// Programs go on when the process closes its data plane, and the next one takes
// over, whether it attaches as the one before or not; and ends them if it is not to
// persist.
func TestPersist(t *testing.T) {
	modes := [][2]AttachMode{{AttachClsact, AttachClsact}}
	if hasTCX() {
		modes = append(modes, [][2]AttachMode{{AttachTCX, AttachTCX}, {AttachTCX, AttachClsact}, {AttachClsact, AttachTCX}}...)
	}
	for _, modes := range modes {
		t.Run(fmt.Sprintf("%d then %d", modes[0], modes[1]), func(t *testing.T) {
			dir := pinDir(t)
			p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, func(i int, c *nodeConfig) {
				if i == 0 {
					c.ebpf = func(c *Config) { c.Attach, c.Persist, c.PinDir = modes[0], true, dir }
				}
			})
			n, b := p.nodes[0], p.nodes[1].host
			places := []place{{ifindex: p.link.A.Index}, {ifindexOf(t, n.host, n.tun.Name()), true}}
			both := func() {
				t.Helper()
				for _, f := range families {
					exchange(t, n.host, b, f.a, f.b, 100)
					exchange(t, b, n.host, f.b, f.a, 100)
				}
				for _, at := range places {
					tcx, filters := attached(t, n.host, at)
					assert.Equal(t, 1, tcx+filters, "%v", at)
				}
			}
			both()
			user := n.fwd.Stats()
			nobody := func() {
				t.Helper()
				s := n.fwd.Stats()
				assert.Equal(t, user.Encapsulated, s.Encapsulated, "in user space")
				assert.Equal(t, user.Decapsulated, s.Decapsulated, "in user space")
			}
			require.NoError(t, n.host.Do(n.kernel.Close))
			both()
			nobody()

			second := n.next(t, func(c *Config) { c.Attach = modes[1] })
			assert.Len(t, second.Carried(), len(families))
			both() // by the old ones still
			assert.Zero(t, second.Stats().KernelEncapsulated.Packets)
			ways := n.fwd.LocalPaths()
			locals := []mapcache.Local{ways[0].Local, ways[1].Local}
			take := func(d *Dataplane) {
				t.Helper()
				n.kernel, n.plane = d, d
				n.insert(t, mapTo(0, "10.77.0.1/32", "198.51.100.2", 0)) // and all that came before
				require.NoError(t, n.host.Do(func() error { return d.SetLocals(locals) }))
			}
			take(second)
			both()
			s := second.Stats()
			assert.GreaterOrEqual(t, s.KernelEncapsulated.Packets, uint64(len(families)))
			assert.GreaterOrEqual(t, s.KernelDecapsulated.Packets, uint64(len(families)))
			nobody()
			require.NoError(t, n.host.Do(second.Close))
			both()

			third := n.next(t, func(c *Config) { c.Persist = false })
			assert.Len(t, third.Carried(), len(families)+1)
			take(third)
			both()
			nobody()
			require.NoError(t, n.host.Do(third.Close))
			for _, at := range places {
				tcx, filters := attached(t, n.host, at)
				assert.Zero(t, tcx+filters, "%v", at)
			}
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

// Programs that nobody looks after leave packets alone when the time is over, arriving
// ones too; Cleanup removes them and the pins.
func TestLinger(t *testing.T) {
	dir := pinDir(t)
	p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, func(i int, c *nodeConfig) {
		if i == 0 {
			c.ebpf = func(c *Config) { c.Persist, c.PinDir, c.Linger = true, dir, time.Hour }
		}
	})
	n, b, f := p.nodes[0], p.nodes[1].host, families[0]
	exchange(t, n.host, b, f.a, f.b, 100)
	n.kernel.cfg.Linger = -time.Second // it is over
	n.kernel.Usage(func(mapcache.Usage) {})
	before := n.stats()
	exchange(t, n.host, b, f.a, f.b, 100)
	exchange(t, b, n.host, f.b, f.a, 100)
	s := n.stats()
	assert.Equal(t, before.KernelEncapsulated, s.KernelEncapsulated)
	assert.Equal(t, before.KernelDecapsulated, s.KernelDecapsulated)
	assert.Equal(t, before.Slow[SlowEntry]+1, s.Slow[SlowEntry])
	assert.Equal(t, before.Decapsulated.Packets+1, s.Decapsulated.Packets, "by the socket")
	n.kernel.cfg.Linger = time.Hour
	n.kernel.Usage(func(mapcache.Usage) {})
	exchange(t, n.host, b, f.a, f.b, 100)
	assert.Equal(t, before.KernelEncapsulated.Packets+1, n.stats().KernelEncapsulated.Packets)

	require.NoError(t, n.host.Do(n.kernel.Close))
	require.NoError(t, n.host.Do(func() error {
		links, err := Cleanup(dir)
		assert.Equal(t, 2, links)
		return err
	}))
	tcx, filters := attached(t, n.host, place{ifindex: p.link.A.Index})
	assert.Zero(t, tcx+filters)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// What is carried over is the map-cache, but for what takes the slow path and for
// defaults. Tables of another version are not read.
func TestCarried(t *testing.T) {
	dir := pinDir(t)
	n, _, _ := changedNode(t, inKernel, func(c *nodeConfig) {
		c.ebpf = func(c *Config) { c.Persist, c.PinDir = true, dir }
	})
	rng := rand.New(rand.NewPCG(1, 2))
	o := &mirrorOps{rng: rng, now: time.Now()}
	for range 2000 {
		o.step(t, n.cache)
	}
	n.insert(t, mapTo(0, "0.0.0.0/0", "198.51.100.2", 0))
	got := map[mapcache.Key][]mapcache.RLOC{}
	second := n.next(t, func(*Config) {})
	for _, m := range second.Carried() {
		assert.Equal(t, carriedTTL, m.TTL)
		got[m.Key] = m.RLOCs
	}
	checked := 0
	for e := range n.cache.All() {
		rlocs, ok := got[e.Key]
		delete(got, e.Key)
		usable := false
		for _, r := range e.RLOCs {
			usable = usable || r.Priority != 255 && !r.Down
		}
		if e.Prefix.Bits() == 0 || len(e.RLOCs) > maxMembers || !usable {
			assert.False(t, ok && usable, "%v", e.Key)
			continue
		}
		if !assert.Len(t, rlocs, len(e.RLOCs), "%v", e.Key) {
			continue
		}
		checked++
		for i, r := range e.RLOCs {
			assert.Equal(t, r.Locator, rlocs[i].Locator)
			if len(rlocs) > 1 {
				assert.Equal(t, [2]uint8{r.Priority, r.Weight}, [2]uint8{rlocs[i].Priority, rlocs[i].Weight})
				assert.Equal(t, r.Down && r.Priority != 255, rlocs[i].Down)
			}
		}
	}
	assert.Greater(t, checked, 10)
	assert.Empty(t, got)

	before := tableLayout
	tableLayout++
	defer func() { tableLayout = before }()
	assert.Empty(t, n.next(t, func(*Config) {}).Carried())
}

// A data plane that was never in use leaves nothing of its own; and what cannot be
// pinned is told before.
func TestPersistUnused(t *testing.T) {
	dir := pinDir(t)
	p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, nil)
	n := p.nodes[0]
	require.NoError(t, n.host.Do(n.kernel.Close))
	at := place{ifindexOf(t, n.host, n.tun.Name()), true}
	require.NoError(t, n.host.Do(func() error { return ProbePersist(dir) }))
	d := n.next(t, func(c *Config) { c.Persist, c.PinDir = true, dir })
	tcx, filters := attached(t, n.host, at)
	assert.Equal(t, 1, tcx+filters)
	require.NoError(t, n.host.Do(d.Close))
	tcx, filters = attached(t, n.host, at)
	assert.Zero(t, tcx+filters)
	left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	require.NoError(t, err)
	assert.Empty(t, left)

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorIs(t, ProbePersist(filepath.Join(file, "xtrkit")), unix.ENOTDIR)
}
