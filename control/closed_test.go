package control_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// signalPlane is a data plane of a closed network.
type signalPlane struct {
	*plane

	mu   sync.Mutex
	told []mapcache.Signals
	// early and late count the entries that were not published yet, and those
	// that were.
	early, late int
}

func (p *signalPlane) SetSignals(s mapcache.Signals) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, s)
	for _, e := range s.Entries {
		if id, ok := p.engine.Cache().View().LookupID(0, eidB.Addr()); ok && id == e.EntryID {
			p.late++
		} else {
			p.early++
		}
	}
}

// A Runner of a closed network hands signals to the data plane before the mappings
// that they are about, and what that discovers to the Engine.
func TestRunnerClosed(t *testing.T) {
	inBubble(t, func(b *bubble) {
		e, err := control.New(control.Config{
			Database:     []control.DatabaseMapping{{Key: mapcache.Key{Prefix: eidA}, MapVersion: 7}},
			MapResolvers: []netip.AddrPort{netip.AddrPortFrom(msRLOC, 0)},
			Closed:       control.Closed{MapVersions: true},
		})
		require.NoError(t, err)
		p := &signalPlane{plane: newPlane(e)}
		var events eventLog
		r := b.run(control.RunnerConfig{Conn: b.conn("x", rlocA), Engine: e, Dataplane: p, OnEvent: events.add})
		r.SetLocals(time.Now(), []mapcache.Local{{Addr: rlocA, Priority: 1, Weight: 1, Up: true}})
		synctest.Wait()
		p.mu.Lock()
		require.NotEmpty(t, p.told)
		assert.EqualValues(t, 7, p.told[len(p.told)-1].Locals[0].MapVersion)
		told := len(p.told)
		p.mu.Unlock()

		require.NoError(t, r.Do(context.Background(), func(time.Time) {}))
		p.mu.Lock()
		assert.Len(t, p.told, told, "nothing new, nothing said")
		p.mu.Unlock()

		p.found <- mapcache.Discovery{
			Kind: mapcache.DiscoveryStaleVersion, Key: mapcache.Key{Prefix: eidA}, MapVersion: 6,
			Locator: mapcache.Locator{Addr: rlocB}, Source: eidB.Addr(),
		}
		synctest.Wait()
		assert.Contains(t, events.lines(), "SMR")

		other := b.node("b", rlocB, eidB)
		time.Sleep(time.Second)
		p.miss(eidB.Addr())
		time.Sleep(time.Second)
		p.mu.Lock()
		assert.Equal(t, 1, p.early)
		assert.Zero(t, p.late)
		p.mu.Unlock()
		require.NoError(t, other.Close())
		require.NoError(t, r.Close())
	})

	_, err := control.NewRunner(control.RunnerConfig{
		Conn: noConn{}, Engine: closedEngine(t), Dataplane: newPlane(closedEngine(t)),
	})
	assert.ErrorIs(t, err, control.ErrConfig, "it cannot take the signals")
}

func closedEngine(t *testing.T) *control.Engine {
	t.Helper()
	e, err := control.New(control.Config{Closed: control.Closed{EchoNonce: true}})
	require.NoError(t, err)
	return e
}

// noConn is a Conn that is not used.
type noConn struct{}

func (noConn) Readers() []control.Reader                   { return nil }
func (noConn) WriteDatagrams([]lisp.Datagram) (int, error) { return 0, net.ErrClosed }
func (noConn) Close() error                                { return nil }

// The times of a closed network that cannot work are refused.
func TestClosedConfig(t *testing.T) {
	for name, c := range map[string]control.Closed{
		"use-LSB time":  {UseLSBTime: -1},
		"echo interval": {EchoInterval: time.Millisecond},
		"echo timeout":  {EchoTimeout: time.Millisecond},
		"echo pause":    {EchoPause: -1},
	} {
		_, err := control.New(control.Config{Closed: c})
		assert.ErrorIs(t, err, control.ErrConfig, name)
	}
}
