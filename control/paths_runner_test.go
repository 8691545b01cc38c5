package control_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/mapcache"
)

// pairPlane keeps what it is told of pairs.
type pairPlane struct {
	*plane
	mu    sync.Mutex
	known map[mapcache.Pair]bool
}

func (p *pairPlane) SetPairs(ps []mapcache.Pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pair := range ps {
		p.known[pair] = true
	}
}

// TestRunnerPairs: the data plane is told of a pair that does not answer.
func TestRunnerPairs(t *testing.T) {
	inBubble(t, func(b *bubble) {
		peer := b.node("b", rlocB, eidB)
		e, err := control.New(control.Config{
			Database:     []control.DatabaseMapping{{Key: mapcache.Key{Prefix: eidA}}},
			MapServers:   []control.MapServer{{Addr: netip.AddrPortFrom(msRLOC, 0), Key: runKey}},
			MapResolvers: []netip.AddrPort{netip.AddrPortFrom(msRLOC, 0)},
		})
		require.NoError(b.t, err)
		p := &pairPlane{plane: newPlane(e), known: map[mapcache.Pair]bool{}}
		r := b.run(control.RunnerConfig{Conn: b.conn("a", rlocA), Engine: e, Dataplane: p})
		dead := netip.MustParseAddr("203.0.113.77") // no answer comes there
		r.SetLocals(time.Now(), []mapcache.Local{{Addr: rlocA, Priority: 1, Up: true}, {Addr: dead, Priority: 1, Up: true}})
		time.Sleep(5 * time.Second) // until all are registered
		p.miss(eidB.Addr())
		time.Sleep(time.Minute)
		p.mu.Lock()
		assert.Equal(b.t, map[mapcache.Pair]bool{
			{Local: dead, Remote: mapcache.Locator{Addr: rlocB, Port: 4341}, Rank: mapcache.PairDown}: true,
		}, p.known)
		p.mu.Unlock()
		require.NoError(b.t, r.Close())
		require.NoError(b.t, peer.Close())
	})
}

// TestPreferRTTNeedsPairs: round-trip times are of no use to a data plane that does
// not choose by pairs.
func TestPreferRTTNeedsPairs(t *testing.T) {
	e, err := control.New(control.Config{Probe: control.ProbeConfig{PreferRTT: true}})
	require.NoError(t, err)
	cfg := control.RunnerConfig{Conn: control.NewConn(), Engine: e, Dataplane: newPlane(e)}
	_, err = control.NewRunner(cfg)
	require.ErrorIs(t, err, control.ErrConfig)
	cfg.Dataplane = &pairPlane{plane: newPlane(e)}
	_, err = control.NewRunner(cfg)
	require.NoError(t, err)
}
