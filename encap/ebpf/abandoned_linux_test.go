package ebpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// What is pinned for another network namespace stays while its programs are at work, and
// goes when nobody has looked after them for too long: with the next start anywhere that
// persists, or by Cleanup.
func TestAbandoned(t *testing.T) {
	for _, by := range []string{"start", "cleanup"} {
		t.Run(by, func(t *testing.T) { testAbandoned(t, by) })
	}
}

func testAbandoned(t *testing.T, by string) {
	dir := pinDir(t)
	p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, func(i int, c *nodeConfig) {
		if i == 0 {
			c.ebpf = func(c *Config) { c.Persist, c.PinDir, c.Linger = true, dir, time.Hour }
		}
	})
	n, other := p.nodes[0], p.nodes[1]
	pinned := func() (names []string) {
		files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		require.NoError(t, err)
		return files
	}
	cleanup := func() int {
		links := 0
		require.NoError(t, other.host.Do(func() (err error) {
			links, err = Cleanup(dir)
			return err
		}))
		return links
	}
	all := len(pinned())
	require.NotZero(t, all)
	require.NoError(t, other.host.Do(other.kernel.Close))
	restart := func() {
		t.Helper()
		d := other.next(t, func(c *Config) { c.Persist, c.PinDir = true, dir })
		ways := other.fwd.LocalPaths()
		require.NoError(t, other.host.Do(func() error { return d.SetLocals([]mapcache.Local{ways[0].Local, ways[1].Local}) }))
		require.NoError(t, other.host.Do(d.Close))
	}
	restart()
	cleanup()
	assert.Len(t, pinned(), all, "at work")

	n.kernel.cfg.Linger = -1 // it is over, also on a machine that started just now
	n.kernel.Usage(func(mapcache.Usage) {})
	tcx, filters := attached(t, n.host, place{ifindex: p.link.A.Index})
	if by == "start" {
		restart()
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, left, 1, "its own")
	} else {
		links := 0
		for _, f := range pinned() {
			if strings.HasPrefix(filepath.Base(f), linkPrefix) {
				links++
			}
		}
		assert.Equal(t, links, cleanup())
		assert.Empty(t, pinned())
	}
	tcxAfter, filtersAfter := attached(t, n.host, place{ifindex: p.link.A.Index})
	assert.Equal(t, [2]int{tcx, filters}, [2]int{tcxAfter, filtersAfter}, "who runs after all keeps its programs")
	cleanup()
}

// What is abandoned may be taken over while somebody removes what is: who takes it over
// has its own, whole, in the end.
func TestAbandonedTakenOver(t *testing.T) {
	for _, mode := range attachModes() {
		for _, by := range []string{"after", "before"} {
			t.Run(fmt.Sprintf("%d, cleanup %s", mode, by), func(t *testing.T) { testAbandonedTakenOver(t, mode, by == "before") })
		}
	}
}

func testAbandonedTakenOver(t *testing.T, mode AttachMode, sawBefore bool) {
	dir := pinDir(t)
	p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, func(i int, c *nodeConfig) {
		if i == 0 {
			c.ebpf = func(c *Config) { c.Attach, c.Persist, c.PinDir, c.Linger = mode, true, dir, time.Hour }
		}
	})
	n, other := p.nodes[0], p.nodes[1]
	pins := n.kernel.heir.pins
	all, err := pins.names()
	require.NoError(t, err)
	n.kernel.cfg.Linger = -1 // it is over, also on a machine that started just now
	require.NoError(t, n.host.Do(n.kernel.Close))
	require.True(t, pins.abandoned())

	d := n.next(t, func(c *Config) { c.Linger = time.Hour })
	assert.Len(t, d.Carried(), len(families))
	if sawBefore { // that it is abandoned, and removes it now
		_, err = pins.removeAll()
		require.NoError(t, err)
	} else {
		require.NoError(t, other.host.Do(func() error {
			_, err := Cleanup(dir)
			return err
		}))
		assert.DirExists(t, pins.dir)
	}
	ways := n.fwd.LocalPaths()
	require.NoError(t, n.host.Do(func() error { return d.SetLocals([]mapcache.Local{ways[0].Local, ways[1].Local}) }))
	after, err := pins.names()
	require.NoError(t, err)
	assert.ElementsMatch(t, all, after)
	assert.False(t, pins.abandoned())
	require.NoError(t, n.host.Do(d.Close))
	for _, at := range []place{{ifindex: p.link.A.Index}, {ifindexOf(t, n.host, n.tun.Name()), true}} {
		tcx, filters := attached(t, n.host, at)
		assert.Equal(t, 1, tcx+filters, "%v", at)
	}
	require.NoError(t, n.host.Do(func() error {
		_, err := Cleanup(dir)
		return err
	}))
}
