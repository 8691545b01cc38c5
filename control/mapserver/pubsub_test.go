package mapserver

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

func withPubSub(c *Config) { c.Experimental.PubSub = true }

// subscribing makes a Map-Request one for a subscription by xtr1 at itr.
func subscribing(m *lisp.MapRequest) {
	m.Reserved |= lisp.RequestReservedXTRID
	m.Records[0].Reserved |= 0x80
	m.SourceEID = lisp.AddressFrom(netip.MustParseAddr("10.9.9.9"))
	m.Trailer = binary.BigEndian.AppendUint64(append([]byte(nil), xtr1[:]...), 5)
}

// pubSub is a server with a subscriber, xtr1 at itr with 10.9.0.0/16, and a
// mapping, 10.1.0.0/16 at etr1.
func pubSub(t testing.TB, change ...func(*Config)) *bench {
	t.Helper()
	b := newBench(t, append([]func(*Config){withPubSub}, change...)...)
	b.put(itr, register(t, key1, record("10.9.0.0/16", 10, "192.0.2.99"), withXTR(xtr1), withTTL))
	b.put(etr1, register(t, key1b, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr2), withTTL))
	return b
}

// publication takes the only datagram to the subscriber as a Map-Notify.
func publication(t testing.TB, out []lisp.Datagram) *lisp.MapNotify {
	t.Helper()
	var got []lisp.Datagram
	for _, d := range out {
		if d.Remote == itr && lisp.TypeOf(d.Bytes) == lisp.TypeMapNotify {
			got = append(got, d)
		}
	}
	require.Len(t, got, 1)
	require.NoError(t, lisp.Verify(got[0].Bytes, key1), "signed with the key that it registers with")
	m := parse[*lisp.MapNotify](t, got[0].Bytes)
	x, site, ok := m.Identity()
	require.True(t, ok)
	assert.Equal(t, xtr1, x)
	assert.EqualValues(t, 5, site)
	return m
}

func (b *bench) moveTo(rloc string) []lisp.Datagram {
	b.t.Helper()
	return b.put(etr1, register(b.t, key1b, record("10.1.0.0/16", 10, rloc), withXTR(xtr2), withTTL, withoutNotify))
}

func (b *bench) ack(m *lisp.MapNotify, key lisp.Key) []lisp.Datagram {
	b.t.Helper()
	ack := lisp.MapNotifyAck(*m)
	msg, err := ack.AppendSigned(nil, key)
	require.NoError(b.t, err)
	return b.put(itr, msg)
}

func TestSubscribe(t *testing.T) {
	b := pubSub(t)
	in := request(t, itr, "10.1.0.0/16", subscribing)
	first := publication(t, b.put(itr, in))
	inner, err := parse[*lisp.EncapsulatedControl](t, in).Inner()
	require.NoError(t, err)
	assert.Equal(t, parse[*lisp.MapRequest](t, inner.Payload).Nonce, first.Nonce)
	assert.Equal(t, []string{"192.0.2.11"}, rlocsOf(first.Records[0].Locators))
	assert.Equal(t, 1, b.s.Stats().Subscriptions)

	// A repeated request changes nothing and is not answered.
	assert.Empty(t, b.put(itr, in))
	assert.EqualValues(t, 1, b.s.Stats().Dropped[ReasonReplay])

	// The same mapping again is no news; another one is.
	assert.Empty(t, b.moveTo("192.0.2.11"))
	second := publication(t, b.moveTo("192.0.2.77"))
	assert.Equal(t, first.Nonce+1, second.Nonce)
	assert.Equal(t, []string{"192.0.2.77"}, rlocsOf(second.Records[0].Locators))

	// Forged acknowledgements don't end the retransmission, the right one does.
	b.ack(second, key2)
	forged := *second
	forged.Nonce++
	b.ack(&forged, key1)
	n := 0
	for range 4 {
		b.advance(time.Second)
		n += len(b.drain())
	}
	assert.Equal(t, 1, n)
	b.ack(second, key1)
	b.advance(time.Minute)
	assert.Empty(t, b.drain())

	// Not renewed it ends.
	b.advance(subscriptionTime)
	assert.Zero(t, b.s.Stats().Subscriptions)
	b.drain()
	for _, d := range b.moveTo("192.0.2.78") {
		assert.NotEqual(t, itr, d.Remote)
	}
}

// TestPublicationRetransmission: the schedule of RFC 9301 §5.7, with what is so by then.
func TestPublicationRetransmission(t *testing.T) {
	b := pubSub(t)
	b.put(itr, request(t, itr, "10.1.0.0/16", subscribing))
	publication(t, b.moveTo("192.0.2.77"))
	began := b.now
	var at []time.Duration
	var last *lisp.MapNotify
	for range 300 {
		b.advance(time.Second)
		if b.now.Sub(began) == 5*time.Second {
			b.moveTo("192.0.2.78")
		}
		for _, d := range b.drain() {
			if d.Remote == itr {
				at = append(at, b.now.Sub(began))
				last = parse[*lisp.MapNotify](t, d.Bytes)
			}
		}
	}
	assert.Equal(t, []time.Duration{3, 6, 9, 15, 27, 51}, secondsOf(at))
	assert.Equal(t, []string{"192.0.2.78"}, rlocsOf(last.Records[0].Locators))
	assert.Zero(t, b.s.Stats().Subscriptions, "then it is given up")
}

// TestPublicationNotForgotten: news that has not been acknowledged is repeated
// although the mapping changed and changed back meanwhile.
func TestPublicationNotForgotten(t *testing.T) {
	b := pubSub(t)
	b.put(itr, request(t, itr, "10.1.0.0/16", subscribing))
	publication(t, b.moveTo("192.0.2.77")) // is lost
	b.advance(time.Second)
	b.moveTo("192.0.2.78")
	b.moveTo("192.0.2.77")
	b.advance(2 * time.Second)
	m := publication(t, b.drain())
	assert.Equal(t, []string{"192.0.2.77"}, rlocsOf(m.Records[0].Locators))
	b.ack(m, key1)
	b.advance(time.Minute)
	for _, d := range b.drain() {
		assert.NotEqual(t, itr, d.Remote)
	}
}

func secondsOf(ds []time.Duration) []time.Duration {
	for i := range ds {
		ds[i] /= time.Second
	}
	return ds
}

// TestNotSubscribed: who may not have a subscription is answered as ever.
func TestNotSubscribed(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*lisp.MapRequest)
		config func(*Config)
	}{
		{"off", nil, func(c *Config) { c.Experimental.PubSub = false }},
		{"no I bit", func(m *lisp.MapRequest) { m.Reserved = 0 }, nil},
		{"no N bit", func(m *lisp.MapRequest) { m.Records[0].Reserved = 0 }, nil},
		{"no xTR-ID", func(m *lisp.MapRequest) { m.Trailer = m.Trailer[:23] }, nil},
		{"another xTR-ID", func(m *lisp.MapRequest) { m.Trailer[15]++ }, nil},
		{"another Site-ID", func(m *lisp.MapRequest) { m.Trailer[23]++ }, nil},
		{"no source EID", func(m *lisp.MapRequest) { m.SourceEID = lisp.Address{} }, nil},
		{"another's source EID", func(m *lisp.MapRequest) { m.SourceEID = lisp.AddressFrom(netip.MustParseAddr("10.1.0.1")) }, nil},
		{"source EID not registered", func(m *lisp.MapRequest) { m.SourceEID = lisp.AddressFrom(netip.MustParseAddr("10.8.0.1")) }, nil},
		{"another's locator", func(m *lisp.MapRequest) {
			m.ITRRLOCs = []lisp.Address{lisp.AddressFrom(netip.MustParseAddr("192.0.2.55"))}
		}, nil},
		{"denied", nil, func(c *Config) { c.Sites[0].Deny = DenyPolicy }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := pubSub(t, func(cfg *Config) {
				if c.config != nil {
					c.config(cfg)
				}
			})
			out := b.put(itr, request(t, itr, "10.1.0.0/16", func(m *lisp.MapRequest) {
				subscribing(m)
				if c.change != nil {
					c.change(m)
				}
			}))
			require.Len(t, out, 1)
			assert.NotEqual(t, lisp.TypeMapNotify, lisp.TypeOf(out[0].Bytes))
			assert.Zero(t, b.s.Stats().Subscriptions)
		})
	}
	t.Run("withdrawn", func(t *testing.T) {
		b := pubSub(t)
		b.put(itr, register(t, key1, record("10.9.0.0/16", 0, "192.0.2.99"), withXTR(xtr1)))
		b.put(etr2, register(t, key1, record("10.9.0.0/16", 10, "192.0.2.12"), withXTR(xtr2)))
		b.put(itr, request(t, itr, "10.1.0.0/16", subscribing))
		assert.Zero(t, b.s.Stats().Subscriptions)
	})
	t.Run("protected wrongly", func(t *testing.T) {
		b := pubSub(t, withLISPSEC)
		r := newSecureRequest(func(r *secureRequest) { r.key.Secret = []byte("wrong") })
		assert.Empty(t, r.ask(b, "10.1.0.0/16", subscribing))
		assert.Zero(t, b.s.Stats().Subscriptions)
		publication(t, newSecureRequest().ask(b, "10.1.0.0/16", subscribing))
	})
}

func TestSubscriptionLimits(t *testing.T) {
	b := pubSub(t, func(c *Config) { c.Experimental.MaxSubscriptions = 32 })
	for i, want := range []int{1, 2, 2} { // a sixteenth for one xTR
		b.put(itr, request(t, itr, fmt.Sprintf("10.1.%d.0/24", i), subscribing))
		assert.Equal(t, want, b.s.Stats().Subscriptions)
	}
	assert.EqualValues(t, 1, b.s.Stats().Dropped[ReasonSubscriptions])
	end := func(m *lisp.MapRequest) { subscribing(m); m.ITRRLOCs = []lisp.Address{{}} }
	old := func(m *lisp.MapRequest) { end(m); m.Nonce = 1 }
	assert.Empty(t, b.put(itr, request(t, itr, "10.1.0.0/24", old)), "a replayed end")
	assert.Equal(t, 2, b.s.Stats().Subscriptions)
	assert.Empty(t, b.put(itr, request(t, itr, "10.1.0.0/24", end)))
	assert.Equal(t, 1, b.s.Stats().Subscriptions)
	assert.Empty(t, b.put(itr, request(t, itr, "10.1.0.0/24", end)))
	b.put(itr, request(t, itr, "10.1.2.0/24", subscribing))
	assert.Equal(t, 2, b.s.Stats().Subscriptions)
}

// TestPublished: what is told when prefixes come and go around the one subscribed to.
func TestPublished(t *testing.T) {
	b := pubSub(t)
	b.put(itr, request(t, itr, "10.1.0.0/16", subscribing))
	say := func(out []lisp.Datagram) (s []string) {
		t.Helper()
		m := publication(t, out)
		b.ack(m, key1)
		for _, r := range m.Records {
			s = append(s, fmt.Sprintf("%v%v%d", prefixOf(t, r), rlocsOf(r.Locators), r.TTL))
		}
		return s
	}
	more := func(eid string, ttl uint32) []byte {
		return register(t, key1, record(eid, ttl, "192.0.2.55"), withXTR(lisp.XTRID{15: 9}), withTTL, withoutNotify)
	}
	assert.Equal(t, []string{"10.1.0.0/16[192.0.2.11]10", "10.1.5.0/24[192.0.2.55]20"}, say(b.put(etr2, more("10.1.5.0/24", 20))))
	assert.Empty(t, b.put(etr2, more("10.0.0.0/8", 20)), "nothing changes for 10.1.0.0/16")
	assert.Equal(t, []string{"10.1.0.0/16[192.0.2.11]10"}, say(b.put(etr2, more("10.1.5.0/24", 0))))
	// Expired, it is what the aggregate says, for this part of it; that goes, too.
	b.advance(10*time.Minute + time.Second)
	assert.Equal(t, []string{"10.1.0.0/16[192.0.2.55]20"}, say(b.drain()))
	assert.Equal(t, []string{"10.1.0.0/16[]1"}, say(b.put(etr2, more("10.0.0.0/8", 0))))
	// Too much for one message: forget it, and ask again.
	var last []lisp.Datagram
	for i := range 40 {
		out := b.put(etr2, more(fmt.Sprintf("10.1.%d.0/24", i), 20))
		for _, d := range out {
			if d.Remote == itr {
				last = out
				b.ack(parse[*lisp.MapNotify](t, d.Bytes), key1)
			}
		}
	}
	assert.Equal(t, []string{"10.1.0.0/16[]0"}, say(last))
}
