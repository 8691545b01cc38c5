package mapserver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

func lispersNet(c *Config) { c.NAT.LispersNet = true }

// named is an Info-Request of lispers.net.
func named(t testing.TB) []byte {
	t.Helper()
	testNonce++
	m := lisp.InfoRequest{Nonce: testNonce}
	require.NoError(t, m.Host.UnmarshalBinary([]byte{0, 17, 'v', 'm', 0}))
	b, err := m.MarshalBinary()
	require.NoError(t, err)
	return b
}

func wantsAll(m *lisp.MapRequest) { m.Reserved |= lisp.RequestReservedNAT }

// forwarded takes apart a Map-Request that goes to an ETR.
func forwarded(t testing.TB, d lisp.Datagram) (lisp.Inner, *lisp.MapRequest) {
	t.Helper()
	in, err := parse[*lisp.EncapsulatedControl](t, d.Bytes).Inner()
	require.NoError(t, err)
	return in, parse[*lisp.MapRequest](t, in.Payload)
}

func mapReply(t testing.TB, nonce lisp.Nonce) []byte {
	t.Helper()
	b, err := (&lisp.MapReply{Nonce: nonce, Records: []lisp.EIDRecord{record("10.1.2.0/24", 10, etr1.Addr().String())}}).MarshalBinary()
	require.NoError(t, err)
	return b
}

// TestLispersNetAsker: who asks from behind a NAT gets its answer where its
// Info-Requests come from, from us or from an ETR.
func TestLispersNetAsker(t *testing.T) {
	b := newBench(t, lispersNet)
	b.put(etr1, register(t, key1, record("10.1.2.0/24", 10, etr1.Addr().String()), withXTR(xtr1)))
	require.Len(t, b.put(natted, named(t)), 1)

	// By an ETR.
	msg := request(t, inside, "10.1.2.3")
	want := testNonce
	out := b.put(natted, msg)
	require.Len(t, out, 1)
	assert.Equal(t, etr1, out[0].Remote)
	in, m := forwarded(t, out[0])
	assert.Equal(t, msAddr, in.Source)
	assert.Equal(t, []lisp.Address{lisp.AddressFrom(msAddr.Addr())}, m.ITRRLOCs)
	theirs, err := parse[*lisp.EncapsulatedControl](t, msg).Inner()
	require.NoError(t, err)
	assert.Equal(t, theirs.Destination, in.Destination)
	asked := parse[*lisp.MapRequest](t, theirs.Payload)
	asked.ITRRLOCs = m.ITRRLOCs
	assert.Equal(t, asked, m, "all else as it was")
	assert.Equal(t, want, m.Nonce)
	reply := mapReply(t, want)
	for range proxiedReplies {
		out = b.put(etr1, reply)
		require.Len(t, out, 1)
		assert.Equal(t, lisp.Datagram{Local: msAddr, Remote: natted, IfIndex: out[0].IfIndex, Bytes: reply}, out[0])
	}
	assert.Empty(t, b.put(etr1, reply), "that is enough")
	assert.Empty(t, b.put(etr1, mapReply(t, want+1)))

	// By us: nobody has it.
	out = b.put(natted, request(t, inside, "10.1.9.9"))
	require.Len(t, out, 1)
	assert.Equal(t, natted, out[0].Remote)
	assert.Equal(t, msAddr, out[0].Local)
	assert.Equal(t, testNonce, parse[*lisp.MapReply](t, out[0].Bytes).Nonce)

	// A Map-Reply that takes too long.
	b.put(natted, request(t, inside, "10.1.2.3"))
	late := mapReply(t, testNonce)
	b.advance(proxiedLife + time.Second)
	b.drain()
	assert.Empty(t, b.put(etr1, late))
}

// TestLispersNetAskers: for nobody else anything is changed.
func TestLispersNetAskers(t *testing.T) {
	other := netip.AddrPortFrom(natted.Addr(), natted.Port()+1)
	for _, tt := range []struct {
		name   string
		change func(*Config)
		info   netip.AddrPort // where the Info-Request comes from
		wait   time.Duration
		from   netip.AddrPort // and the Map-Request
		rloc   netip.AddrPort
		ours   bool
	}{
		{"as it should be", lispersNet, natted, 0, natted, inside, true},
		{"just in time", lispersNet, natted, infoSourceLife, natted, inside, true},
		{"too late", lispersNet, natted, infoSourceLife + time.Second, natted, inside, false},
		{"from another port", lispersNet, natted, 0, other, inside, false},
		{"not behind a NAT", lispersNet, natted, 0, natted, natted, false},
		{"switched off", func(*Config) {}, natted, 0, natted, inside, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.change)
			b.put(tt.info, named(t))
			b.advance(tt.wait)
			b.put(etr1, register(t, key1, record("10.1.2.0/24", 10, etr1.Addr().String()), withXTR(xtr1)))
			msg := request(t, tt.rloc, "10.1.2.3")
			out := b.put(tt.from, msg)
			require.Len(t, out, 1)
			_, m := forwarded(t, out[0])
			assert.Equal(t, tt.ours, m.ITRRLOCs[0] == lisp.AddressFrom(msAddr.Addr()))
			if !tt.ours {
				e := parse[*lisp.EncapsulatedControl](t, msg)
				assert.Equal(t, e.Packet, parse[*lisp.EncapsulatedControl](t, out[0].Bytes).Packet, "octet for octet")
				assert.Empty(t, b.put(etr1, mapReply(t, m.Nonce)))
			}
		})
	}
}

// TestLispersNetWantsAll: the N bit asks for all locators, for decentralized NAT.
func TestLispersNetWantsAll(t *testing.T) {
	b := newBench(t, withRTRs, lispersNet, func(c *Config) { c.Sites[0].ProxyReply = true })
	rec := record("10.1.2.3/32", 3, natted.Addr().String(), rtr1.Addr().String())
	rec.Locators[0].Priority, rec.Locators[1].Priority = 0, natt.PriorityRTR
	require.Len(t, b.put(natted, register(t, key1, rec, withXTR(xtr1))), 1)
	for _, want := range []int{1, 2} {
		var opts []requestOption
		if want == 2 {
			opts = append(opts, wantsAll)
		}
		out := b.put(itr, request(t, itr, "10.1.2.3", opts...))
		require.Len(t, out, 1)
		assert.Len(t, parse[*lisp.MapReply](t, out[0].Bytes).Records[0].Locators, want)
	}
}
