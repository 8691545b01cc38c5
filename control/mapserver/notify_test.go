package mapserver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// unsolicited takes the only datagram to addr as a Map-Notify signed with key.
func unsolicited(t testing.TB, out []lisp.Datagram, to netip.AddrPort, key lisp.Key) *lisp.MapNotify {
	t.Helper()
	var found *lisp.MapNotify
	for _, d := range out {
		if d.Remote != to {
			continue
		}
		require.Nil(t, found, "one at a time")
		require.NoError(t, lisp.Verify(d.Bytes, key))
		found = parse[*lisp.MapNotify](t, d.Bytes)
	}
	require.NotNil(t, found, "%v", out)
	return found
}

// ackOf is what the receiver of a Map-Notify answers.
func ackOf(t testing.TB, m *lisp.MapNotify, key lisp.Key, opts ...func(*lisp.MapNotifyAck)) []byte {
	t.Helper()
	ack := lisp.MapNotifyAck(*m)
	for _, o := range opts {
		o(&ack)
	}
	b, err := ack.AppendSigned(nil, key)
	require.NoError(t, err)
	return b
}

func (b *bench) registers(from netip.AddrPort, r lisp.EIDRecord, opts ...registerOption) []lisp.Datagram {
	b.t.Helper()
	out := b.put(from, register(b.t, key1, r, opts...))
	require.NotEmpty(b.t, out)
	return out
}

// notNotifying checks that nothing is left of any unsolicited Map-Notify.
func (b *bench) notNotifying() {
	b.t.Helper()
	assert.Empty(b.t, b.s.notifies.peers)
	assert.Empty(b.t, b.s.notifies.due)
	assert.Zero(b.t, b.s.notifies.count)
	b.s.awaited.Range(func(k, _ any) bool {
		assert.Fail(b.t, "still awaited", "%v", k)
		return true
	})
}

func TestMovedMappingIsNotified(t *testing.T) {
	for name, tc := range map[string]struct {
		first, second []registerOption
		identity      lisp.XTRID
	}{
		"xTR-IDs":   {[]registerOption{withXTR(xtr1)}, []registerOption{withXTR(xtr2)}, xtr1},
		"addresses": {nil, nil, lisp.XTRID{}},
		"same xTR":  {[]registerOption{withXTR(xtr1)}, []registerOption{withXTR(xtr1)}, xtr1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			assert.Len(t, b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), tc.first...), 1)
			b.events()
			out := b.registers(etr2, record("10.1.0.0/16", 10, "192.0.2.12"), tc.second...)
			require.Len(t, out, 2)
			assert.Equal(t, etr2, out[0].Remote, "the acknowledgement")
			m := unsolicited(t, out, etr1, key1)
			assert.Equal(t, msAddr, out[1].Local)
			require.Len(t, m.Records, 1)
			assert.Equal(t, "10.1.0.0/16", prefixOf(t, m.Records[0]))
			assert.Equal(t, []string{"192.0.2.12"}, rlocsOf(m.Records[0].Locators))
			assert.False(t, m.Records[0].Locators[0].Local)
			// RFC nat19i-4.3-1, nat19i-4.3-3: the identifiers are those of the receiver.
			assert.Equal(t, tc.identity, m.XTRID)
			assert.Equal(t, tc.identity != lisp.XTRID{}, m.XTRIDPresent)

			es := b.events()
			require.Len(t, es, 2)
			assert.Contains(t, es[1].String(), "moved 10.1.0.0/16 of site a by 192.0.2.12:4342")
			assert.Contains(t, es[1].String(), " from 192.0.2.11 to 192.0.2.12")

			b.advance(2 * time.Second)
			assert.Empty(t, b.put(etr1, ackOf(t, m, key1)))
			es = b.events()
			require.Len(t, es, 1)
			assert.Contains(t, es[0].String(), "map-notify-ack from 192.0.2.11:4342")
			b.notNotifying()
			assert.Empty(t, b.put(etr1, ackOf(t, m, key1)), "once more")
			assert.Equal(t, ReasonUnexpected, b.lastReason())
			b.advance(time.Minute)
			assert.Empty(t, b.drain()) // RFC 9301-5.7-s2: until the Map-Notify-Ack
			st := b.s.Stats()
			assert.EqualValues(t, 1, st.Moves)
			assert.EqualValues(t, 1, st.UnsolicitedNotifies)
			assert.EqualValues(t, 1, st.NotifyAcks)
			assert.Zero(t, st.NotifiesUnanswered)
		})
	}
}

// sends is when something is sent to an address in the course of time, in
// seconds from now on, and the messages.
func (b *bench) sends(to netip.AddrPort, d time.Duration) (at []float64, messages [][]byte) {
	begin, end := b.now, b.now.Add(d)
	for {
		for _, d := range b.drain() {
			if d.Remote == to {
				at, messages = append(at, b.now.Sub(begin).Seconds()), append(messages, d.Bytes)
			}
		}
		next := b.s.Deadline()
		if next.IsZero() || next.After(end) {
			b.now = end
			return at, messages
		}
		b.now = next
		b.s.Advance(next)
	}
}

func TestUnsolicitedNotifyIsRetransmitted(t *testing.T) {
	b := newBench(t, func(c *Config) { c.RegisterTimeout = time.Hour })
	b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
	b.s.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: etr2, Bytes: register(t, key1, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2))})
	b.events()
	at, messages := b.sends(etr1, 10*time.Minute)
	// RFC 9301-5.7-2: three times at three seconds, three more doubling.
	assert.Equal(t, []float64{0, 3, 6, 9, 15, 27, 51}, at)
	for _, m := range messages {
		assert.Equal(t, messages[0], m, "the same message")
	}
	es := b.events()
	require.Len(t, es, 1)
	assert.Contains(t, es[0].String(), "no map-notify-ack from 192.0.2.11:4342")
	b.notNotifying()
	assert.EqualValues(t, 7, b.s.Stats().UnsolicitedNotifies)
	assert.EqualValues(t, 1, b.s.Stats().NotifiesUnanswered)
}

// TestNotifyAckIsVerified: RFC 9301-5.7-s4.
func TestNotifyAckIsVerified(t *testing.T) {
	wrong := key1
	wrong.Secret = []byte("guess")
	for name, tc := range map[string]struct {
		ack    func(m *lisp.MapNotify) []byte
		reason Reason // NumReasons: accepted
	}{
		"as it should be": {func(m *lisp.MapNotify) []byte { return ackOf(t, m, key1) }, NumReasons},
		"without records, identifiers behind it": {func(m *lisp.MapNotify) []byte {
			return ackOf(t, m, key1, func(a *lisp.MapNotifyAck) {
				a.Records, a.XTRIDPresent, a.Trailer = nil, false, make([]byte, 24)
			})
		}, NumReasons},
		"wrong key":    {func(m *lisp.MapNotify) []byte { return ackOf(t, m, wrong) }, ReasonAuth},
		"other key ID": {func(m *lisp.MapNotify) []byte { return ackOf(t, m, key1b) }, ReasonAuth},
		"no algorithm": {func(m *lisp.MapNotify) []byte { return ackOf(t, m, lisp.Key{ID: 1}) }, ReasonAuth},
		"changed": {func(m *lisp.MapNotify) []byte {
			b := ackOf(t, m, key1)
			b[len(b)-1] ^= 1
			return b
		}, ReasonAuth},
		"other nonce": {func(m *lisp.MapNotify) []byte {
			return ackOf(t, m, key1, func(a *lisp.MapNotifyAck) { a.Nonce++ })
		}, ReasonUnexpected},
		"the Map-Notify itself": {func(m *lisp.MapNotify) []byte {
			b, err := m.AppendSigned(nil, key1)
			require.NoError(t, err)
			return b
		}, ReasonUnexpected},
		"short": {func(*lisp.MapNotify) []byte { return []byte{0x50, 0, 0, 0, 1} }, ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
			m := unsolicited(t, b.registers(etr2, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2)), etr1, key1)
			b.events()
			assert.Empty(t, b.put(etr1, tc.ack(m)))
			if tc.reason == NumReasons {
				b.notNotifying()
				return
			}
			assert.Equal(t, tc.reason, b.lastReason())
			at, _ := b.sends(etr1, 4*time.Second)
			assert.Equal(t, []float64{3}, at, "still sent")
		})
	}
}

// TestDisplacedLocators: all that were in the mapping and are no more, but none
// that can't be sent to, and not the one that registers.
func TestDisplacedLocators(t *testing.T) {
	b := newBench(t)
	r := record("10.1.0.0/16", 10, "192.0.2.11", "192.0.2.21", "192.0.2.22", "192.0.2.23", "224.0.0.9", "2001:db8::11")
	r.Locators[3].Reachable = false
	b.registers(etr1, r, withXTR(xtr1))
	out := b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.22", "192.0.2.31"), withXTR(xtr1))
	require.Len(t, out, 3)
	unsolicited(t, out, netip.MustParseAddrPort("192.0.2.21:4342"), key1)
	unsolicited(t, out, netip.MustParseAddrPort("[2001:db8::11]:4342"), key1)

	// A change of weights displaces nobody.
	b = newBench(t)
	b.registers(etr1, r, withXTR(xtr1))
	r.Locators[0].Weight = 7
	assert.Len(t, b.registers(etr1, r, withXTR(xtr1)), 1)
	assert.Zero(t, b.s.Stats().Moves)
}

// TestOtherRegisteredXTRsHearOfChanges, also when nobody is displaced.
func TestOtherRegisteredXTRsHearOfChanges(t *testing.T) {
	b := newBench(t)
	b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withMerge)
	m := unsolicited(t, b.registers(etr2, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2), withMerge), etr1, key1)
	assert.Equal(t, []string{"192.0.2.11", "192.0.2.12"}, rlocsOf(m.Records[0].Locators))
	assert.Zero(t, b.s.Stats().Moves)
	b.put(etr1, ackOf(t, m, key1))
	b.notNotifying()

	// One withdraws: the other has it alone again.
	m = unsolicited(t, b.registers(etr2, record("10.1.0.0/16", 0, "192.0.2.12"), withXTR(xtr2), withMerge), etr1, key1)
	assert.Equal(t, []string{"192.0.2.11"}, rlocsOf(m.Records[0].Locators))
	b.put(etr1, ackOf(t, m, key1))

	// One falls silent.
	b.registers(etr2, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2), withMerge)
	b.advance(2 * time.Minute)
	b.drain()
	require.Len(t, b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withMerge), 1)
	b.advance(time.Minute)
	m = unsolicited(t, b.drain(), etr1, key1)
	assert.Equal(t, []string{"192.0.2.11"}, rlocsOf(m.Records[0].Locators))
	b.put(etr1, ackOf(t, m, key1))
	b.notNotifying()
	b.advance(time.Hour)
	assert.Empty(t, b.drain(), "the last one expires, nobody is left to hear of it")
}

// TestChangesMeanwhileAreCollected: one Map-Notify is under way at a time; the
// next transmission says what is the case then.
func TestChangesMeanwhileAreCollected(t *testing.T) {
	b := newBench(t)
	b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
	b.registers(etr1, record("10.2.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
	one := unsolicited(t, b.registers(etr2, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2)), etr1, key1)
	b.advance(time.Second)
	for _, a := range []string{"192.0.2.13", "192.0.2.14"} {
		for _, d := range b.registers(etr2, record("10.1.0.0/16", 10, a), withXTR(xtr2)) {
			assert.NotEqual(t, etr1, d.Remote, "not before it is due")
		}
	}
	b.registers(etr2, record("10.2.0.0/16", 10, "192.0.2.14"), withXTR(xtr2))
	b.advance(2 * time.Second)
	two := unsolicited(t, b.drain(), etr1, key1)
	assert.NotEqual(t, one.Nonce, two.Nonce)
	require.Len(t, two.Records, 2)
	assert.Equal(t, []string{"192.0.2.14"}, rlocsOf(two.Records[0].Locators))
	b.events()
	b.put(etr1, ackOf(t, one, key1))
	assert.Equal(t, ReasonUnexpected, b.lastReason(), "of the old message")

	// What changes after it was said is said again when it is acknowledged.
	b.registers(etr2, record("10.2.0.0/16", 10, "192.0.2.15"), withXTR(xtr2))
	three := unsolicited(t, b.put(etr1, ackOf(t, two, key1)), etr1, key1)
	require.Len(t, three.Records, 1)
	assert.Equal(t, []string{"192.0.2.15"}, rlocsOf(three.Records[0].Locators))
	// And back: nobody there has to hear what he says himself.
	b.registers(etr1, record("10.2.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
	for k := range b.s.notifies.peers {
		assert.NotEqual(t, etr1.Addr(), k.addr)
	}
}

// TestNotifyIsSplit over messages that fit the path, each acknowledged by
// itself (RFC 9301-5-2).
func TestNotifyIsSplit(t *testing.T) {
	const eids = 400
	for _, family := range []struct {
		old, taker netip.AddrPort
		most       int
	}{
		{etr1, etr2, maxPayloadIPv4},
		{netip.MustParseAddrPort("[2001:db8::11]:4342"), netip.MustParseAddrPort("[2001:db8::12]:4342"), maxPayloadIPv6},
	} {
		b := newBench(t)
		all := func(from netip.AddrPort, x lisp.XTRID) []lisp.Datagram {
			var out []lisp.Datagram
			for i := 0; i < eids; i += 200 {
				opts := []registerOption{withXTR(x), func(m *lisp.MapRegister) {
					m.Records = nil
					for j := range 200 {
						p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte((i + j) >> 8), byte(i + j)}), 32)
						m.Records = append(m.Records, record(p.String(), 10, from.Addr().String()))
					}
				}}
				out = append(out, b.registers(from, lisp.EIDRecord{}, opts...)...)
			}
			return out
		}
		all(family.old, xtr1)
		out := all(family.taker, xtr2)
		told := map[string]int{}
		messages := 0
		for {
			var m *lisp.MapNotify
			for _, d := range out {
				if d.Remote == family.old {
					require.Nil(t, m, "one at a time")
					require.NoError(t, lisp.Verify(d.Bytes, key1))
					m = parse[*lisp.MapNotify](t, d.Bytes)
					assert.LessOrEqual(t, len(d.Bytes), family.most)
				}
			}
			if m == nil {
				break
			}
			messages++
			for _, r := range m.Records {
				told[prefixOf(t, r)]++
				assert.Equal(t, []string{family.taker.Addr().String()}, rlocsOf(r.Locators))
			}
			out = b.put(family.old, ackOf(t, m, key1))
		}
		assert.Len(t, told, eids)
		for p, n := range told {
			assert.Equal(t, 1, n, p)
		}
		assert.Greater(t, messages, eids*30/family.most)
		assert.Less(t, messages, eids/10)
		b.notNotifying()
	}
}

// TestSolicitedNotifyIsAsLongAsItsRegister: whatever way an ETR splits its
// Map-Registers, the Map-Notifies are split too.
func TestSolicitedNotifyIsAsLongAsItsRegister(t *testing.T) {
	b := newBench(t)
	for _, k := range []lisp.Key{key1, key1b} {
		for _, n := range []int{1, 20, 255} {
			msg := register(t, k, lisp.EIDRecord{}, withXTR(xtr1), func(m *lisp.MapRegister) {
				m.Records = nil
				for i := range n {
					p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, byte(i), 0}), 24)
					m.Records = append(m.Records, record(p.String(), 10, "192.0.2.11"))
				}
			})
			out := b.put(etr1, msg)
			require.Len(t, out, 1)
			assert.Len(t, out[0].Bytes, len(msg))
		}
	}
}

func TestNotifyStateIsBounded(t *testing.T) {
	const limit = 10
	for _, n := range []int{limit, -1} {
		b := newBench(t, func(c *Config) { c.MaxNotifies = n })
		for i := range 50 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24).String()
			old := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), 4342)
			b.registers(old, record(p, 10, old.Addr().String()), withXTR(xtr1))
			b.registers(etr2, record(p, 10, "192.0.2.12"), withXTR(xtr2))
			assert.LessOrEqual(t, b.s.notifies.count, limit)
		}
		if n < 0 {
			b.notNotifying()
			assert.Zero(t, b.s.Stats().UnsolicitedNotifies)
			continue
		}
		assert.Len(t, b.s.notifies.peers, limit)
		assert.EqualValues(t, 40, b.s.Stats().Dropped[ReasonNotifies])
		// One receiver, one EID-Prefix, going to and fro.
		for i := range 1000 {
			b.registers(netip.AddrPortFrom(etr1.Addr(), uint16(i+1)), record("10.1.0.0/24", 10, "192.0.2.11"), withXTR(xtr1))
			b.registers(etr2, record("10.1.0.0/24", 10, "192.0.2.12"), withXTR(xtr2))
		}
		for _, p := range b.s.notifies.peers {
			assert.LessOrEqual(t, len(p.waiting), 2*limit+20)
		}
		b.advance(10 * time.Minute)
		b.notNotifying()
	}
}

// TestOthersMovesAreNotOurs: a Delta from another server was notified there.
func TestOthersMovesAreNotOurs(t *testing.T) {
	a := newBench(t, func(c *Config) { c.Journal = 10 })
	a.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
	a.registers(etr2, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2))
	b := newBench(t)
	ds, _ := a.s.Changes()
	for _, d := range ds {
		_, err := b.s.Merge(b.now, d)
		require.NoError(t, err)
	}
	assert.Len(t, b.s.Registrations(b.now), 1)
	b.notNotifying()
}
