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

func madeUp(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), 4342)
}

// TestAnswersDontAmplify: whatever is registered, an answer is no longer than a
// multiple of the request, or than the one mapping that was asked for.
func TestAnswersDontAmplify(t *testing.T) {
	for _, more := range []int{0, 3, 15, 16, 17, 100} {
		for _, locators := range []int{1, 4, 20, 255} {
			for _, asked := range []int{1, 2, 30} {
				b := newBench(t, func(c *Config) { c.Sites[0].ProxyReply = true })
				rlocs := make([]string, locators)
				for i := range rlocs {
					rlocs[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String()
				}
				b.registers(etr1, record("10.1.0.0/16", 10, rlocs...))
				for i := range more {
					b.registers(etr1, record(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24).String(), 10, rlocs...))
				}
				msg := request(t, itr, "10.1.200.1", func(m *lisp.MapRequest) {
					for i := 1; i < asked; i++ {
						m.Records = append(m.Records, lisp.RequestRecord{MaskLen: 32, EID: lisp.AddressFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 1}))})
					}
				})
				one := record("10.1.0.0/16", 10, rlocs...)
				octets, records := 0, 0
				out := b.put(itr, msg)
				for _, d := range out {
					octets += len(d.Bytes)
					records += len(parse[*lisp.MapReply](t, d.Bytes).Records)
				}
				name := fmt.Sprintf("%d more specifics, %d locators, %d asked", more, locators, asked)
				assert.Positive(t, records, name)
				// The record that steps over the bound is sent, and each message has 12 octets of its own.
				assert.LessOrEqual(t, octets, maxAmplification*len(msg)+recordLen(&one)+12*len(out), name)
				if asked > 1 && locators > 20 {
					assert.Less(t, records, asked, name)
				}
				if asked == 1 && locators == 1 && more > 0 && more < 15 {
					assert.Len(t, parse[*lisp.MapReply](t, out[0].Bytes).Records, more+1, name)
				}
			}
		}
	}
}

// TestLongAnswersTakeMoreTokens, so that the rate limits bound octets too.
func TestLongAnswersTakeMoreTokens(t *testing.T) {
	rlocs := make([]string, 255)
	for i := range rlocs {
		rlocs[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String()
	}
	b := newBench(t, func(c *Config) { c.RatePerSource = 60; c.Sites[0].ProxyReply = true })
	b.registers(etr1, record("10.1.0.0/16", 10, rlocs...))
	octets := 0
	for range 100 {
		for _, d := range b.put(itr, request(t, itr, "10.1.2.3")) {
			octets += len(d.Bytes)
		}
	}
	assert.Greater(t, octets, 20*maxPayloadIPv4)
	assert.LessOrEqual(t, octets, 60*maxPayloadIPv4)
	assert.Positive(t, b.s.Stats().Dropped[ReasonRate])
}

// TestFloodOfRequestsLeavesOthersServed: made-up sources exhaust what all have
// together; registered xTRs are answered and can register meanwhile, and no
// more is sent than allowed.
func TestFloodOfRequestsLeavesOthersServed(t *testing.T) {
	const total = 1000
	b := newBench(t, func(c *Config) { c.RatePerSource, c.RateTotal = 100, total })
	b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withProxy)
	b.registers(etr2, record("10.2.0.0/16", 10, "192.0.2.12"), withProxy)
	const seconds = 5
	replies, useful, notifies := 0, 0, 0
	for s := range seconds {
		for i := range 5000 {
			from := madeUp(s*5000 + i)
			replies += len(b.put(from, request(t, from, "10.1.2.3")))
			if i%500 == 0 {
				useful += len(b.put(etr2, request(t, etr2, "10.1.2.3")))
			}
			if i == 2500 {
				notifies += len(b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withProxy))
			}
		}
		b.advance(time.Second)
	}
	assert.LessOrEqual(t, replies, total*(seconds+1))
	assert.Equal(t, 10*seconds, useful, "all of a registered xTR's")
	assert.Equal(t, seconds, notifies)
	assert.Equal(t, 2, b.s.claimCount)

	// One who has not registered for long is like anybody else.
	b.advance(knownFor * time.Second)
	for i := range 5000 {
		b.put(madeUp(i), request(t, madeUp(i), "10.1.2.3"))
	}
	assert.Empty(t, b.put(etr2, request(t, etr2, "10.1.2.3")))
}

func TestKnownAddresses(t *testing.T) {
	l := newLimits(-1, 10, 1)
	assert.False(t, l.isKnown(0, etr1.Addr()))
	l.vouch(int64(time.Hour), etr1.Addr())
	assert.True(t, l.isKnown(int64(time.Hour), etr1.Addr()))
	assert.False(t, l.isKnown(int64(time.Hour), etr2.Addr()))
	known := 0
	for i := range 100_000 {
		if l.isKnown(int64(time.Hour), madeUp(i).Addr()) {
			known++
		}
	}
	assert.Zero(t, known)
	assert.False(t, l.isKnown(int64(time.Hour+knownFor*time.Second), etr1.Addr()))
	newLimits(-1, -1, 1).vouch(0, etr1.Addr())
}

// TestKnownByRegistering: whoever registers stays known, though his
// Map-Registers change nothing; who repeats those of others does not become it.
func TestKnownByRegistering(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Sites[0].Replay = ReplayStrict })
	known := func(a netip.AddrPort) bool { return b.s.limits.isKnown(b.s.toTicks(b.now), a.Addr()) }
	var last []byte
	for i := range 10 {
		last = register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
		require.Len(t, b.put(etr1, last), 1)
		b.advance(time.Minute)
		assert.True(t, known(etr1), "after %d min", i+1)
	}
	assert.EqualValues(t, 9, b.s.Stats().Refreshes)
	b.put(etr2, last)
	assert.EqualValues(t, 1, b.s.Stats().Duplicates)
	assert.False(t, known(etr2), "a duplicate from elsewhere")
	b.put(etr2, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withNonce(1)))
	assert.EqualValues(t, 1, b.s.Stats().Dropped[ReasonReplay])
	assert.False(t, known(etr2), "an old one from elsewhere")
}

// TestFloodOfWrongRegisters costs no state, is answered by nothing, and leaves
// the others' registrations and the history alone.
func TestFloodOfWrongRegisters(t *testing.T) {
	b := newBench(t, func(c *Config) { c.History = 64 })
	b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
	before := state(t, b.s)
	wrong := key1
	wrong.Secret = []byte("guess")
	good := 0
	for i := range 20_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		msg := register(t, wrong, record(p.String(), 10, "192.0.2.66"), withXTR(lisp.XTRID{byte(i >> 8), byte(i)}))
		require.Empty(t, b.put(madeUp(i), msg))
		if i%1000 == 0 {
			b.now = b.now.Add(time.Second)
			good += len(b.registers(etr2, record("10.200.0.0/16", 10, "192.0.2.12"), withXTR(xtr2)))
		}
	}
	assert.Equal(t, 20, good)
	assert.Len(t, state(t, b.s), len(before)+1)
	assert.Equal(t, 2, b.s.xtrs.len())
	assert.Equal(t, 2, b.s.claimCount)
	assert.EqualValues(t, 20_000, b.s.Stats().Dropped[ReasonAuth])
	assert.Empty(t, b.drain())
	b.notNotifying()
	b.advance(time.Minute)
	last := b.now
	for range 1000 {
		b.put(etr1, register(t, wrong, record("10.1.0.0/16", 10, "192.0.2.66")))
	}
	now := 0
	for _, e := range b.s.History() {
		if e.Time.Equal(last) {
			now++
		}
	}
	assert.Equal(t, 10, now, "a second's worth")
	changes, refusals := 0, 0
	for _, e := range b.s.History() {
		if _, ok := e.Event.(Refused); ok {
			refusals++
		} else {
			changes++
		}
	}
	assert.Equal(t, 2, changes, "still to be seen")
	assert.Equal(t, 64, refusals)
	assert.LessOrEqual(t, len(b.s.history.refusals.events), 64)
}

func TestHistory(t *testing.T) {
	b := newBench(t, func(c *Config) { c.History = 8; c.MaxNotifies = -1 })
	lines := func() []string {
		var s []string
		for _, e := range b.s.History() {
			s = append(s, e.Event.String())
		}
		return s
	}
	assert.Empty(t, lines())
	b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"))
	b.advance(time.Second)
	b.put(etr1, register(t, key2, record("10.1.0.0/16", 10, "192.0.2.66")))
	b.advance(time.Second)
	b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11")) // a refresh is no news
	r := record("10.1.0.0/16", 10, "192.0.2.13")
	r.MapVersion = 2
	b.registers(etr1, r)
	b.advance(time.Second)
	r.MapVersion = 1
	b.put(etr1, register(t, key1, r))
	b.advance(time.Second)
	b.registers(etr1, record("10.1.0.0/16", 0, "192.0.2.13"))
	b.registers(etr1, record("10.2.0.0/16", 10, "192.0.2.11"))
	b.advance(time.Hour)
	assert.Equal(t, []string{
		"registered 10.1.0.0/16 of site a by 192.0.2.11:4342 at 192.0.2.11",
		"refused map-register for 10.1.0.0/16 from 192.0.2.11:4342 key 1: algorithm not allowed (site a)",
		"changed 10.1.0.0/16 of site a by 192.0.2.11:4342 at 192.0.2.13",
		"refused map-register for 10.1.0.0/16 from 192.0.2.11:4342 key 1: old Map-Version (site a)",
		"withdrawn 10.1.0.0/16 of site a by 192.0.2.11:4342",
		"registered 10.2.0.0/16 of site a by 192.0.2.11:4342 at 192.0.2.11",
		"expired 10.2.0.0/16 of site a last registered by 192.0.2.11",
	}, lines())
	// A move, and the oldest goes.
	b = newBench(t, func(c *Config) { c.History = 3 })
	for i := range 3 {
		b.registers(etr1, record(fmt.Sprintf("10.%d.0.0/16", i), 10, "192.0.2.11"))
	}
	b.registers(etr2, record("10.2.0.0/16", 10, "192.0.2.12"))
	got := lines()
	require.Len(t, got, 3)
	assert.Contains(t, got[0], "registered 10.2.0.0/16")
	assert.Contains(t, got[1], "changed 10.2.0.0/16")
	assert.Contains(t, got[2], "moved 10.2.0.0/16")
	for _, off := range []func(c *Config){
		func(c *Config) { c.History = -1 },
		func(c *Config) { c.EventBuffer = -1 },
	} {
		b = newBench(t, off)
		b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"))
		b.put(etr1, register(t, key2, record("10.1.0.0/16", 10, "192.0.2.66")))
		assert.Empty(t, lines())
	}
}
