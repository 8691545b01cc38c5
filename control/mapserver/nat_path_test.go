package mapserver

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestRelayedRefreshPath: a relayed refresh takes the path of refreshes, which is
// the one that allocates nothing and leaves the records as they are.
func TestRelayedRefreshPath(t *testing.T) {
	b := newBench(t, withRTRs)
	w := b.s.NewWorker()
	for i := range 3 {
		msg := relayed(t, inside, register(t, key1, natRecord("10.1.2.3/32", rtr1.Addr()), withXTR(xtr1)))
		r := w.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: rtr1, Bytes: msg})
		require.NotNil(t, r.Update)
		assert.Equal(t, i > 0, r.Update.recycled)
		b.s.Apply(b.now, r.Update)
		b.drain()
	}
}

// TestPathsFollow: Map-Notifies go to where an xTR was heard of last, also when
// that was a refresh, straight to one that comes directly, and nothing is kept of those
// that are gone.
func TestPathsFollow(t *testing.T) {
	b := newBench(t, withRTRs)
	rec := record("10.1.2.3/32", 10, rtr1.Addr().String())
	other := netip.MustParseAddrPort("172.20.0.5:4342")
	b.put(rtr1, relayed(t, inside, register(t, key1, rec, withXTR(xtr1))))
	b.put(rtr1, relayed(t, other, register(t, key1, rec, withXTR(xtr1))))
	assert.EqualValues(t, 1, b.s.Stats().Refreshes)
	out := b.put(etr2, register(t, key1, record("10.1.2.3/32", 10, "192.0.2.12"), withXTR(xtr2)))
	require.Len(t, out, 2)
	_, in, _ := relayedNotify(t, out[1])
	assert.Equal(t, other, in.Destination)
	require.Len(t, b.s.paths, 1)

	b.put(etr1, register(t, key1, record("10.1.2.3/32", 10, "192.0.2.11"), withXTR(xtr1)))
	out = b.put(etr2, register(t, key1, record("10.1.2.3/32", 10, "192.0.2.13"), withXTR(xtr2)))
	require.Len(t, out, 2)
	assert.Equal(t, etr1, out[1].Remote, "behind no NAT any more")
	assert.Equal(t, lisp.TypeMapNotify, lisp.TypeOf(out[1].Bytes))
	b.put(rtr1, relayed(t, inside, register(t, key1, rec, withXTR(xtr1))))
	require.Len(t, b.s.paths, 1)
	b.advance(time.Hour)
	assert.Empty(t, b.s.paths, "gone")
}

// TestNotifySeveralWays: an xTR with an interface that is public and several RTRs is
// told by each as it has to be.
func TestNotifySeveralWays(t *testing.T) {
	b := newBench(t, withRTRs)
	rec := record("10.1.2.3/32", 10, rtr1.Addr().String(), rtr2.Addr().String(), "192.0.2.33")
	b.put(rtr1, relayed(t, inside, register(t, key1, rec, withXTR(xtr1))))
	out := b.put(etr2, register(t, key1, record("10.1.2.3/32", 10, "192.0.2.12"), withXTR(xtr2)))
	seen := 0
	for _, d := range out {
		switch d.Remote {
		case rtr1:
			e, _, _ := relayedNotify(t, d)
			require.NoError(t, e.VerifyRTR(rtrKey1))
			seen++
		case rtr2:
			e, _, _ := relayedNotify(t, d)
			assert.True(t, e.RTR)
			assert.Empty(t, e.Security, "no key is shared with it")
			seen++
		case netip.MustParseAddrPort("192.0.2.33:4342"):
			require.NoError(t, lisp.Verify(d.Bytes, key1))
			seen++
		}
	}
	assert.Equal(t, 3, seen)
}

// TestInfoRequestLocal: without the address that it came to, the answer names one of
// the server's.
func TestInfoRequestLocal(t *testing.T) {
	b := newBench(t, withRTRs, func(c *Config) { c.Locals = []netip.Addr{msAddr6.Addr(), msAddr.Addr()} })
	d := lisp.Datagram{Local: netip.AddrPortFrom(netip.Addr{}, 4342), Remote: natted, Bytes: infoRequest(t, key1, "10.1.2.0/24")}
	require.True(t, b.s.Handle(b.now, d))
	out := b.drain()
	require.Len(t, out, 1)
	n, err := parse[*lisp.InfoReply](t, out[0].Bytes).Traversal()
	require.NoError(t, err)
	assert.Equal(t, lisp.AddressFrom(msAddr.Addr()), n.MS)
}

// TestMoveOutOfNAT: the RTR of a node that is behind no NAT any more hears of it, by
// the way that the node was heard of before, and has to ask.
func TestMoveOutOfNAT(t *testing.T) {
	for _, known := range []bool{true, false} {
		b := newBench(t, func(c *Config) {
			if known {
				withRTRs(c)
			}
		})
		b.put(rtr1, relayed(t, inside, register(t, key1, record("10.1.2.3/32", 10, rtr1.Addr().String()), withXTR(xtr1))))
		out := b.put(etr1, register(t, key1, record("10.1.2.3/32", 10, "192.0.2.11"), withXTR(xtr1)))
		require.Len(t, out, 2)
		assert.Equal(t, etr1, out[0].Remote)
		assert.Equal(t, rtr1, out[1].Remote)
		e, in, m := relayedNotify(t, out[1])
		if known {
			require.NoError(t, e.VerifyRTR(rtrKey1))
		}
		assert.Equal(t, inside.Addr(), in.Destination.Addr())
		assert.Equal(t, []string{"192.0.2.11"}, rlocsOf(m.Records[0].Locators))
	}
}

// TestMoveOutOfNATByParts: the EID-Prefixes of a node take several Map-Registers. Its
// RTR hears of all of them.
func TestMoveOutOfNATByParts(t *testing.T) {
	for _, known := range []bool{true, false} {
		b := newBench(t, func(c *Config) {
			if known {
				withRTRs(c)
			}
		})
		eids := []string{"10.1.2.3/32", "10.1.2.4/32"}
		for _, eid := range eids {
			b.put(rtr1, relayed(t, inside, register(t, key1, record(eid, 10, rtr1.Addr().String()), withXTR(xtr1))))
		}
		var heard []string
		hear := func(ds []lisp.Datagram) {
			for _, d := range ds {
				if d.Remote != rtr1 {
					continue
				}
				_, in, m := relayedNotify(t, d)
				assert.Equal(t, inside.Addr(), in.Destination.Addr())
				_, p, _ := m.Records[0].Prefix()
				heard = append(heard, p.String())
				ack := lisp.MapNotifyAck(*m)
				msg, err := ack.AppendSigned(nil, key1)
				require.NoError(t, err)
				b.put(rtr1, msg)
			}
		}
		for _, eid := range eids {
			hear(b.put(etr1, register(t, key1, record(eid, 10, "192.0.2.11"), withXTR(xtr1))))
		}
		assert.Equal(t, eids, heard)
	}
}

// TestRelayedNotifySize: an unsolicited Map-Notify fits its packet with all that is
// around it on the way to an RTR.
func TestRelayedNotifySize(t *testing.T) {
	b := newBench(t, withRTRs)
	var old, moved []lisp.EIDRecord
	for i := range 20 {
		eid := fmt.Sprintf("10.1.2.%d/32", i)
		old, moved = append(old, record(eid, 10, rtr1.Addr().String())), append(moved, record(eid, 10, "192.0.2.12"))
	}
	all := func(rs []lisp.EIDRecord) func(*lisp.MapRegister) { return func(m *lisp.MapRegister) { m.Records = rs } }
	b.put(rtr1, relayed(t, inside, register(t, key1, old[0], withXTR(xtr1), all(old))))
	told := 0
	for _, d := range b.put(etr2, register(t, key1, moved[0], withXTR(xtr2), all(moved))) {
		if d.Remote == rtr1 {
			_, _, m := relayedNotify(t, d)
			told += len(m.Records)
			assert.LessOrEqual(t, len(d.Bytes), maxPayloadIPv4)
		}
	}
	assert.Greater(t, told, 10)
}
