package netsim_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestRunners is the same over PacketConns: two xTRs and a Map-Server, each with
// its Runner and goroutines, in the virtual time of a bubble.
func TestRunners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := netsim.New(netsim.Config{Seed: 1})
		var wg, others sync.WaitGroup
		otherCtx, stopOthers := context.WithCancel(context.Background())
		ms, err := mapserver.New(mapserver.Config{
			Sites: []mapserver.Site{{
				Name: "all", Keys: []lisp.Key{key},
				Prefixes: []mapserver.SitePrefix{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true}},
			}},
			Rand: chacha(1, 0),
		})
		require.NoError(t, err)
		start := func(ctx context.Context, wg *sync.WaitGroup, name string, a netip.Addr, cfg control.RunnerConfig) *control.Runner {
			nd := n.AddNode(name)
			nd.AddInterface(n.Internet(), good, a)
			pc, err := nd.ListenPacket(netip.AddrPortFrom(a, lisp.ControlPort))
			require.NoError(t, err)
			cfg.Conn = control.NewConn(pc)
			r, err := control.NewRunner(cfg)
			require.NoError(t, err)
			wg.Go(func() { assert.NoError(t, r.Run(ctx)) })
			return r
		}
		start(otherCtx, &others, "ms", mapSv, control.RunnerConfig{Cores: map[control.Role]control.Core{control.RoleMapServer: ms}})
		var engines [2]*control.Engine
		var runners [2]*control.Runner
		eid := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i), 1}) }
		for i := range engines {
			engines[i], err = control.New(control.Config{
				Database:     []control.DatabaseMapping{{Key: mapcache.Key{Prefix: netip.PrefixFrom(eid(i), 32)}}},
				MapServers:   []control.MapServer{{Addr: netip.AddrPortFrom(mapSv, 4342), Key: key}},
				MapResolvers: []netip.AddrPort{netip.AddrPortFrom(mapSv, 4342)},
				Rand:         chacha(1, uint64(i+1)),
			})
			require.NoError(t, err)
			rloc := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
			runners[i] = start(ctx, &wg, rloc.String(), rloc, control.RunnerConfig{Engine: engines[i]})
			runners[i].SetLocals(time.Now(), []mapcache.Local{{Addr: rloc, Priority: 1, Weight: 100, Up: true}})
		}
		others.Go(func() { n.Serve(otherCtx) })

		time.Sleep(5 * time.Second) // of the bubble
		assert.Equal(t, 2, ms.Stats().Registrations)
		require.NoError(t, runners[0].Do(ctx, func(now time.Time) {
			engines[0].Resolve(now, []mapcache.Key{{Prefix: netip.PrefixFrom(eid(1), 32)}})
		}))
		time.Sleep(5 * time.Second)
		require.NoError(t, runners[0].Do(ctx, func(time.Time) {
			e, ok := engines[0].Cache().LookupEntry(0, eid(1))
			assert.True(t, ok)
			if assert.Len(t, e.RLOCs, 1) {
				assert.Equal(t, "192.0.2.2", e.RLOCs[0].Addr.String())
			}
		}))
		cancel()
		wg.Wait()
		assert.Zero(t, ms.Stats().Registrations, "withdrawn on the way out")
		stopOthers()
		others.Wait()
	})
}
