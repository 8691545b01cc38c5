package control_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// TestNATStranded: an address that looks public is behind a NAT, and no RTR is to be
// had. What was registered meanwhile is taken back at once.
func TestNATStranded(t *testing.T) {
	w := newNATWorld(t, nil)
	w.none = true
	_, in := w.behind("nat", nat1, public1, symmetric)
	w.locals(in)
	w.net.Run(18 * time.Millisecond) // at the Map-Server, its answer is under way
	require.Equal(t, []string{public1.String()}, keysOf(w.registered(natEID)))
	w.net.Run(50 * time.Millisecond)
	require.Equal(t, natt.NoRTR, w.xtr.Bindings()[0].State, w.texts())
	assert.Empty(t, w.registered(natEID))
	r := w.xtr.Registrations()[0]
	assert.Equal(t, control.StateWithdrawn, r.State)
	assert.Equal(t, "the Map-Server names no RTR: one has to be configured there", r.LastError)
	assert.Equal(t, 2, w.sentTypes()[lisp.TypeMapRegister])
	assert.Len(t, eventsOf[control.Withdrawn](w), 1)
	w.node.Step(func(now time.Time) {
		require.NoError(t, w.xtr.SetDatabase(now, []control.DatabaseMapping{{Key: natEID, TTL: time.Hour}}))
	})
	w.net.Run(10 * time.Minute)
	assert.Equal(t, 2, w.sentTypes()[lisp.TypeMapRegister], "once is enough")
	assert.Equal(t, mapcache.Miss, w.forward("192.0.2.9").Verdict)

	// An RTR is named: it is registered by it as if nothing had been.
	w.none = false
	w.net.Run(30 * time.Second)
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	r = w.xtr.Registrations()[0]
	assert.Equal(t, control.StateRegistered, r.State)
	assert.Empty(t, r.LastError)
	assert.Equal(t, natRTRs[0], r.RTR)
	assert.True(t, w.reachable(0))

	// And no more: neither is the RTR left in the mapping.
	w.none = true
	w.net.Run(30 * time.Second)
	require.Equal(t, natt.NoRTR, w.xtr.Bindings()[0].State)
	assert.Empty(t, w.registered(natEID))
	w.none = false
	w.net.Run(30 * time.Second)
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	w.node.Step(w.xtr.Withdraw)
	w.net.Run(time.Second)
	assert.True(t, w.xtr.WithdrawDone())
	assert.Empty(t, w.registered(natEID))
}

// TestNATStrandedUnanswered: the Map-Server doesn't answer the withdrawal. It is
// repeated for as long as the registration can live, and not for ever; an end of the
// node waits for it no longer.
func TestNATStrandedUnanswered(t *testing.T) {
	w := newNATWorld(t, nil)
	w.none = true
	_, in := w.behind("nat", nat1, public1, symmetric)
	w.locals(in)
	require.True(t, w.net.RunUntil(time.Second, func() bool { return w.xtr.Bindings()[0].State == natt.NoRTR }))
	in.SetDown(true) // without a word from the system
	w.net.Run(2 * time.Minute)
	sent := w.sentTypes()[lisp.TypeMapRegister]
	assert.Greater(t, sent, 5)
	assert.Equal(t, control.StateWithdrawing, w.xtr.Registrations()[0].State)
	w.net.Run(3 * time.Minute)
	assert.Equal(t, control.StateWithdrawn, w.xtr.Registrations()[0].State)
	sent = w.sentTypes()[lisp.TypeMapRegister]
	w.net.Run(10 * time.Minute)
	assert.Equal(t, sent, w.sentTypes()[lisp.TypeMapRegister])
	w.node.Step(w.xtr.Withdraw)
	w.net.Run(time.Second)
	assert.True(t, w.xtr.WithdrawDone())
}

// TestNATStrandedLands: an RTR is named while the withdrawal is still unanswered. What
// goes by the RTR is a registration.
func TestNATStrandedLands(t *testing.T) {
	w := newNATWorld(t, nil)
	w.none = true
	_, in := w.behind("nat", nat1, public1, symmetric)
	w.locals(in)
	w.net.Run(18 * time.Millisecond)
	w.busy = true
	w.net.Run(15 * time.Second)
	require.Equal(t, control.StateWithdrawing, w.xtr.Registrations()[0].State)
	w.none = false
	w.net.Run(30 * time.Second)
	w.busy = false
	direct := w.sentTypes()[lisp.TypeMapRegister]
	w.net.Run(2 * time.Minute)
	assert.Equal(t, direct, w.sentTypes()[lisp.TypeMapRegister])
	assert.Equal(t, control.StateRegistered, w.xtr.Registrations()[0].State)
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	for _, m := range w.registersByRTR() {
		assert.NotZero(t, m.Records[0].TTL)
	}
}

// TestNATStrandedDualStack: IPv4 is behind a NAT without an RTR, and the only way to
// the Map-Server. The public IPv6 locator is registered by it all the same.
func TestNATStrandedDualStack(t *testing.T) {
	six := netip.MustParseAddr("2001:db8:6::1")
	w := newNATWorld(t, nil)
	w.none = true
	_, in := w.behind("nat", nat1, inner1, symmetric)
	w.locals(in, w.node.AddInterface(w.net.Internet(), natLink, six))
	for range 10 {
		w.net.Run(time.Minute)
		require.Equal(t, []string{six.String()}, keysOf(w.registered(natEID)), w.texts())
		assert.Equal(t, control.StateRegistered, w.xtr.Registrations()[0].State)
		assert.Empty(t, w.xtr.Registrations()[0].LastError)
	}
	for _, r := range w.sent {
		if lisp.TypeOf(r.Bytes) == lisp.TypeMapRegister {
			assert.Equal(t, inner1, r.From.Addr())
		}
	}
	// What is removed from the database is withdrawn the same way.
	second := mapcache.HostKey(0, netip.MustParseAddr("192.0.2.2"))
	w.node.Step(func(now time.Time) {
		require.NoError(t, w.xtr.SetDatabase(now, []control.DatabaseMapping{{Key: natEID}, {Key: second}}))
	})
	w.net.Run(time.Second)
	require.Equal(t, []string{six.String()}, keysOf(w.registered(second)))
	w.node.Step(func(now time.Time) {
		require.NoError(t, w.xtr.SetDatabase(now, []control.DatabaseMapping{{Key: natEID}}))
	})
	w.net.Run(time.Second)
	assert.Empty(t, w.registered(second))
	assert.Len(t, w.xtr.Registrations(), 1)
	w.node.Step(w.xtr.Withdraw)
	w.net.Run(time.Second)
	assert.True(t, w.xtr.WithdrawDone())
	assert.Empty(t, w.registered(natEID))
}

// TestNATStrandedOne: of two uplinks one has lost its RTR already, the other one not
// yet. Nothing is withdrawn before both have.
func TestNATStrandedOne(t *testing.T) {
	w := newNATWorld(t, nil)
	_, in1 := w.behind("nat1", nat1, inner1, symmetric)
	_, in2 := w.behind("nat2", nat2, inner2, symmetric)
	w.locals(in1, in2)
	w.net.Run(10 * time.Second)
	stranded := func() (n int) {
		for _, b := range w.xtr.Bindings() {
			if b.State == natt.NoRTR {
				n++
			}
		}
		return n
	}
	w.none = true
	require.True(t, w.net.RunUntil(time.Minute, func() bool { return stranded() == 1 }))
	w.net.Run(200 * time.Millisecond)
	require.Equal(t, 1, stranded())
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	assert.Empty(t, eventsOf[control.Withdrawn](w))
	assert.Zero(t, w.sentTypes()[lisp.TypeMapRegister], "directly")
	require.True(t, w.net.RunUntil(time.Minute, func() bool { return stranded() == 2 }))
	w.net.Run(200 * time.Millisecond)
	assert.Empty(t, w.registered(natEID))
}

// TestNATWithdrawRace: whenever in its first second the node goes, the Map-Server has
// nothing of it in the end.
func TestNATWithdrawRace(t *testing.T) {
	for _, local := range []netip.Addr{inner1, public1} {
		for at := time.Duration(0); at < 200*time.Millisecond; at += 5 * time.Millisecond {
			w := newNATWorld(t, nil)
			_, in := w.behind("nat", nat1, local, symmetric)
			w.rtrAt[1].SetLink(natSlow)
			w.locals(in)
			w.net.Run(at)
			w.node.Step(w.xtr.Withdraw)
			require.True(t, w.net.RunUntil(20*time.Second, w.xtr.WithdrawDone))
			heard, acked := w.ms.Stats().Registers, !w.xtr.Registrations()[0].LastAck.IsZero()
			w.net.Run(2 * time.Second)
			assert.Equal(t, heard, w.ms.Stats().Registers, "%v at %v", local, at)
			assert.NotEqual(t, control.StateRegistered, w.xtr.Registrations()[0].State)
			assert.Equal(t, acked, len(eventsOf[control.Withdrawn](w)) == 1)
			assert.Empty(t, w.registered(natEID), "%v at %v: %v", local, at, w.xtr.Registrations()[0].State)
			for _, r := range w.rtrs {
				assert.Empty(t, r.Relays())
			}
		}
	}
}
