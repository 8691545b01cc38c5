package control_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

var rlocC = netip.MustParseAddr("203.0.113.3") // where the ETR moves to

// newPubSubLab is a secLab whose ITR registers too and subscribes.
func newPubSubLab(t *testing.T, change ...func(itr, etr *control.Config, ms *mapserver.Config)) *secLab {
	t.Helper()
	subscribing := func(itr, etr *control.Config, ms *mapserver.Config) {
		itr.LISPSEC = control.LISPSEC{}
		etr.XTRID = lisp.XTRID{15: 2}
		itr.XTRID, itr.SiteID = lisp.XTRID{15: 1}, 7
		itr.Database = []control.DatabaseMapping{{Key: mapcache.Key{Prefix: netip.MustParsePrefix("192.0.2.64/26")}}}
		itr.MapServers = []control.MapServer{{Addr: netip.AddrPortFrom(msRLOC, 0), Key: runKey}}
		itr.Experimental.PubSub, ms.Experimental.PubSub = true, true
	}
	return newSecLab(t, append([]func(itr, etr *control.Config, ms *mapserver.Config){subscribing}, change...)...)
}

// moveETR changes the ETR's locator; its host stays where it is on the wire.
func (l *secLab) moveETR(to netip.Addr) {
	l.etr.SetLocals(l.now, []mapcache.Local{
		{Addr: rlocB, Priority: 255, Weight: 100, Up: true}, {Addr: to, Priority: 1, Weight: 100, Up: true},
	})
	l.run()
}

func (l *secLab) locator(a netip.Addr) netip.Addr {
	l.itr.Publish()
	return l.itr.Cache().View().Forward(0, a, 0).Locator.Addr
}

// publications are the Map-Notifies about the ETR's EID-Prefix that the ITR got.
func (l *secLab) publications() (out []*lisp.MapNotify) {
	for _, d := range l.of(msRLOC, rlocA, lisp.TypeMapNotify) {
		m := new(lisp.MapNotify)
		require.NoError(l.t, m.UnmarshalBinary(d.Bytes))
		_, p, _ := m.Records[0].Prefix()
		if secSite.Overlaps(p) {
			out = append(out, m)
		}
	}
	return out
}

// noSMR swallows Solicit-Map-Requests, so that only publications tell of changes.
func noSMR(d lisp.Datagram) []lisp.Datagram {
	if lisp.TypeOf(d.Bytes) == lisp.TypeMapRequest {
		return nil
	}
	return []lisp.Datagram{d}
}

func TestSubscription(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(itr, etr *control.Config, ms *mapserver.Config)
	}{
		{"plain", func(_, _ *control.Config, _ *mapserver.Config) {}},
		{"proxy replies", func(_, etr *control.Config, _ *mapserver.Config) { etr.MapServers[0].ProxyReply = true }},
		{"LISP-SEC", func(itr, _ *control.Config, _ *mapserver.Config) {
			itr.LISPSEC = control.LISPSEC{Mode: control.LISPSECRequired, Resolvers: []control.ResolverKey{{Key: secITRKey}}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newPubSubLab(t, c.change)
			l.wire = noSMR
			l.resolve(secEID)
			l.advance(2 * time.Second)
			require.Equal(t, rlocB, l.locator(secEID))
			require.Equal(t, 1, l.ms.Stats().Subscriptions)
			confirmed := l.publications()
			require.Len(t, confirmed, 1)
			assert.Equal(t, lisp.XTRID{15: 1}, confirmed[0].XTRID)

			// A change is published at once, acknowledged, and not repeated.
			l.moveETR(rlocC)
			assert.Equal(t, rlocC, l.locator(secEID))
			l.advance(time.Minute)
			p := l.publications()
			require.Len(t, p, 2)
			assert.Greater(t, p[1].Nonce, p[0].Nonce)
			ent, ok := l.itr.Cache().Get(mapcache.Key{Prefix: secSite})
			require.True(t, ok)
			assert.Equal(t, mapcache.OriginNotify, ent.Origin)

			// The site goes: no stale mapping stays behind.
			l.etr.Withdraw(l.now)
			l.run()
			assert.False(t, l.known(secEID))

			// What is not used any more is not subscribed to any more.
			l.itr.Cache().Remove(l.now, mapcache.Key{Prefix: secSite})
			l.itr.Publish()
			l.run()
			assert.Zero(t, l.ms.Stats().Subscriptions)
			assert.Zero(t, l.itr.Stats().Subscriptions)
		})
	}
}

// TestSubscriptionOff: without the switch nobody subscribes, and nobody is subscribed.
func TestSubscriptionOff(t *testing.T) {
	l := newPubSubLab(t, func(itr, _ *control.Config, _ *mapserver.Config) { itr.Experimental.PubSub = false })
	l.resolve(secEID)
	l.advance(time.Minute)
	assert.Zero(t, l.itr.Stats().Subscriptions)
	assert.Zero(t, l.ms.Stats().Subscriptions)
	for _, d := range l.of(rlocA, msRLOC, lisp.TypeEncapsulatedControl) {
		var e lisp.EncapsulatedControl
		require.NoError(t, e.DecodeFromBytes(d.Bytes))
		in, err := e.Inner()
		require.NoError(t, err)
		var m lisp.MapRequest
		require.NoError(t, m.DecodeFromBytes(in.Payload))
		assert.Zero(t, m.Reserved)
		assert.Zero(t, m.Records[0].Reserved)
		assert.Empty(t, m.Trailer)
	}

	l = newPubSubLab(t, func(_, _ *control.Config, ms *mapserver.Config) { ms.Experimental.PubSub = false })
	l.resolve(secEID)
	l.advance(time.Hour)
	assert.True(t, l.known(secEID), "the Map-Server answers as ever")
	assert.Zero(t, l.ms.Stats().Subscriptions)
	assert.Zero(t, l.itr.Stats().Publications)
	// Three tries each quarter of an hour.
	assert.Less(t, len(l.of(rlocA, msRLOC, lisp.TypeEncapsulatedControl)), 20)

	_, err := control.New(control.Config{Experimental: control.Experimental{PubSub: true}})
	assert.ErrorIs(t, err, control.ErrConfig, "it takes an xTR-ID")
}

// TestSubscriptionLoss: confirmation, publication and acknowledgement are lost.
func TestSubscriptionLoss(t *testing.T) {
	for _, lost := range []lisp.Type{lisp.TypeMapNotify, lisp.TypeMapNotifyAck, lisp.TypeEncapsulatedControl} {
		l := newPubSubLab(t)
		l.resolve(secEID)
		n := 0
		drop := func(d lisp.Datagram) []lisp.Datagram {
			if lisp.TypeOf(d.Bytes) == lost && (d.Local.Addr() == rlocA || d.Remote.Addr() == rlocA) {
				if n++; n == 1 {
					return nil
				}
			}
			return noSMR(d)
		}
		l.wire = drop
		l.advance(10 * time.Second)
		require.Equal(t, 1, l.ms.Stats().Subscriptions, lost.String())
		n = 0
		l.moveETR(rlocC)
		l.advance(10 * time.Second)
		assert.Equal(t, rlocC, l.locator(secEID), lost.String())
		sent := len(l.publications())
		l.advance(time.Minute)
		assert.Len(t, l.publications(), sent, "acknowledged in the end: %v", lost)
	}
	t.Run("gone", func(t *testing.T) { // the subscriber does not answer any more
		l := newPubSubLab(t)
		l.resolve(secEID)
		l.advance(5 * time.Second)
		l.wire = func(d lisp.Datagram) []lisp.Datagram {
			if d.Remote.Addr() == rlocA || d.Local.Addr() == rlocA {
				return nil
			}
			return []lisp.Datagram{d}
		}
		before := len(l.publications())
		l.moveETR(rlocC)
		l.advance(5 * time.Minute)
		assert.Len(t, l.publications(), before+7)
		assert.Zero(t, l.ms.Stats().Subscriptions)
	})
}

// TestForgedPublications: nothing is believed that is not signed with the key
// shared with the Map-Server and numbered upward.
func TestForgedPublications(t *testing.T) {
	l := newPubSubLab(t)
	l.wire = noSMR
	l.resolve(secEID)
	l.advance(5 * time.Second)
	l.moveETR(rlocC)
	l.advance(time.Second)
	p := l.publications()
	require.Len(t, p, 2)
	last := p[1]
	key := mapcache.Key{Prefix: secSite}
	bad := last.Records[0]
	bad.Locators = []lisp.RLOCRecord{{Priority: 1, Weight: 1, Reachable: true, RLOC: lisp.AddressFrom(rlocA)}}
	sign := func(k lisp.Key, change func(*lisp.MapNotify)) lisp.Datagram {
		m := lisp.MapNotify{Nonce: last.Nonce + 1, XTRIDPresent: true, XTRID: last.XTRID, SiteID: last.SiteID, Records: []lisp.EIDRecord{bad}}
		change(&m)
		b, err := m.AppendSigned(nil, k)
		require.NoError(t, err)
		return lisp.Datagram{Local: netip.AddrPortFrom(msRLOC, 4342), Remote: netip.AddrPortFrom(rlocA, 4342), Bytes: b}
	}
	same := func(*lisp.MapNotify) {}
	for _, c := range []struct {
		name string
		d    lisp.Datagram
	}{
		{"wrong key", sign(lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("wrong")}, same)},
		{"not signed", sign(lisp.Key{}, same)},
		{"old nonce", sign(runKey, func(m *lisp.MapNotify) { m.Nonce = last.Nonce - 1 })},
		{"same nonce", sign(runKey, func(m *lisp.MapNotify) { m.Nonce = last.Nonce })},
		{"for another xTR", sign(runKey, func(m *lisp.MapNotify) { m.XTRID[0] = 9 })},
		{"for another site", sign(runKey, func(m *lisp.MapNotify) { m.SiteID = 9 })},
		{"more than subscribed to", sign(runKey, func(m *lisp.MapNotify) { m.Records[0].MaskLen = 24 })},
		{"something else", sign(runKey, func(m *lisp.MapNotify) { m.Records[0].EID = lisp.AddressFrom(netip.MustParseAddr("192.0.2.128")) })},
		{"from elsewhere", func() lisp.Datagram {
			d := sign(runKey, same)
			d.Local = netip.AddrPortFrom(rlocB, 4342)
			return d
		}()},
	} {
		acks := l.itr.Stats().Publications
		l.deliver(c.d)
		l.run()
		ent, ok := l.itr.Cache().Get(key)
		require.True(t, ok)
		assert.Equal(t, rlocC, l.locator(secEID), c.name)
		assert.NotEqual(t, rlocA, ent.RLOCs[0].Addr, c.name)
		assert.Equal(t, 1, l.itr.Cache().Len(), c.name)
		assert.Equal(t, acks, l.itr.Stats().Publications, c.name)
	}
	l.deliver(sign(runKey, same))
	assert.Equal(t, rlocA, l.locator(secEID), "and the right one is")
}

// TestResubscription: before it ends, after new locators, and after a restart.
func TestResubscription(t *testing.T) {
	l := newPubSubLab(t)
	l.wire = noSMR
	l.resolve(secEID)
	for range 20 { // hours in use
		l.advance(5 * time.Minute)
		require.True(t, l.known(secEID))
		require.Equal(t, 1, l.ms.Stats().Subscriptions)
	}
	confirmed := len(l.publications())
	assert.InDelta(t, 100/14, confirmed, 2)
	for i, p := range l.publications()[1:] {
		assert.Greater(t, p.Nonce, l.publications()[i].Nonce)
	}

	// New locators: it hears there.
	l.itr.SetLocals(l.now, []mapcache.Local{{Addr: rlocA, Priority: 1, Weight: 100, Up: true}, {Addr: rlocC, Priority: 2, Weight: 1, Up: true}})
	l.advance(5 * time.Second)
	assert.Len(t, l.publications(), confirmed+1)

	// A restart: everything is forgotten here, but not there.
	l.now = l.now.Add(time.Minute)
	restarted, err := control.New(control.Config{
		MapResolvers: []netip.AddrPort{netip.AddrPortFrom(msRLOC, 0)}, Probe: control.ProbeConfig{Interval: -1},
		Database:   []control.DatabaseMapping{{Key: mapcache.Key{Prefix: netip.MustParsePrefix("192.0.2.64/26")}}},
		MapServers: []control.MapServer{{Addr: netip.AddrPortFrom(msRLOC, 0), Key: runKey}},
		XTRID:      lisp.XTRID{15: 1}, SiteID: 7, Experimental: control.Experimental{PubSub: true},
	})
	require.NoError(t, err)
	l.itr = restarted
	l.itr.SetLocals(l.now, []mapcache.Local{{Addr: rlocA, Priority: 1, Weight: 100, Up: true}})
	l.run()
	l.resolve(secEID)
	l.advance(5 * time.Second)
	assert.Equal(t, 1, l.ms.Stats().Subscriptions)
	l.moveETR(netip.MustParseAddr("203.0.113.4"))
	assert.Equal(t, netip.MustParseAddr("203.0.113.4"), l.locator(secEID))

	// An old publication of the previous run.
	for _, d := range l.of(msRLOC, rlocA, lisp.TypeMapNotify) {
		l.deliver(lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: bytes.Clone(d.Bytes)})
	}
	assert.Equal(t, netip.MustParseAddr("203.0.113.4"), l.locator(secEID))
}

// TestPublicationOfAnother: a Map-Server publishes what it was subscribed at for, not
// what another one of ours confirmed, though we share a key with it.
func TestPublicationOfAnother(t *testing.T) {
	other, key := netip.MustParseAddrPort("198.18.0.77:4342"), lisp.Key{ID: 9, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("another")}
	l := newPubSubLab(t, func(itr, _ *control.Config, _ *mapserver.Config) {
		itr.MapServers = append(itr.MapServers, control.MapServer{Addr: other, Key: key})
	})
	l.wire = noSMR
	l.resolve(secEID)
	l.advance(2 * time.Second)
	p := l.publications()
	require.Len(t, p, 1)
	n := *p[0]
	n.Nonce++
	n.Records[0].Locators[0].RLOC = lisp.AddressFrom(rlocC)
	b, err := n.AppendSigned(nil, key)
	require.NoError(t, err)
	l.itr.Handle(l.now, lisp.Datagram{Local: netip.AddrPortFrom(rlocA, 4342), Remote: other, Bytes: b})
	assert.Equal(t, rlocB, l.locator(secEID))
	assert.EqualValues(t, 1, l.itr.Stats().Dropped[control.DropUnknownNonce])
}
