package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/lisp"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func socket(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// resolver answers Map-Requests with a record, from the second one on if it is to
// miss the first; with none it says nothing.
func resolver(t *testing.T, miss int, record *lisp.EIDRecord) netip.AddrPort {
	t.Helper()
	c := socket(t)
	go func() {
		b := make([]byte, 2048)
		for n := 0; ; n++ {
			size, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			m, err := lisp.Parse(b[:size])
			if !assert.NoError(t, err) || n < miss || record == nil {
				continue
			}
			in, err := m.(*lisp.EncapsulatedControl).Inner()
			if !assert.NoError(t, err) {
				continue
			}
			var request lisp.MapRequest
			if !assert.NoError(t, request.DecodeFromBytes(in.Payload)) {
				continue
			}
			_, isEID := request.SourceEID.IP()
			assert.False(t, isEID, "it is nobody's EID that asks")
			// The answer goes to an ITR-RLOC and the port that the request names.
			to, ok := request.ITRRLOCs[0].IP()
			assert.True(t, ok)
			reply, err := (&lisp.MapReply{Nonce: request.Nonce, Records: []lisp.EIDRecord{*record}}).MarshalBinary()
			assert.NoError(t, err)
			_, err = c.WriteTo(reply, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, in.Source.Port())))
			assert.NoError(t, err)
		}
	}()
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

func record(locators ...string) *lisp.EIDRecord {
	r := &lisp.EIDRecord{TTL: 60, MaskLen: 24, EID: lisp.AddressFrom(netip.MustParseAddr("198.51.100.0"))}
	for i, l := range locators {
		r.Locators = append(r.Locators, lisp.RLOCRecord{Priority: uint8(i + 1), Weight: 100, Reachable: i == 0, RLOC: lisp.AddressFrom(netip.MustParseAddr(l))})
	}
	return r
}

func TestAsk(t *testing.T) {
	t.Parallel()
	positive := record("203.0.113.5", "2001:db8::5")
	positive.Authoritative = true
	negative, policy := record(), record()
	negative.Action, policy.Action = lisp.ActionNativelyForward, lisp.ActionDropPolicyDenied
	for _, tc := range []struct {
		name    string
		record  *lisp.EIDRecord
		miss    int
		retries int
		sent    int
		says    []string
	}{
		{"positive", positive, 0, 3, 1, []string{
			"198.51.100.7 at 127.0.0.1: answer from 127.0.0.1 (the site itself) in ", " ms, 1 Map-Request sent\n",
			"EID-prefix 198.51.100.0/24, ttl 1h0m\n   Locator       State   Pri/Wgt\n   203.0.113.5   up      1/100\n   2001:db8::5   down    2/100\n",
		}},
		{"the second Map-Request", positive, 1, 3, 2, []string{"2 Map-Requests sent"}},
		// How and why an answer is negative is told: 6835i-6-1.
		{"native", negative, 0, 3, 1, []string{"(for the site)", "negative: natively-forward (it is no EID, packets go there without LISP)"}},
		{"policy", policy, 0, 3, 1, []string{"negative: drop/policy-denied (policy forbids packets to it)"}},
		{"silence", nil, 0, 0, 1, []string{"198.51.100.7 at 127.0.0.1: no Map-Reply, 1 Map-Request sent"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := ask(t.Context(), question{
				eid: netip.MustParseAddr("198.51.100.7"), resolver: resolver(t, tc.miss, tc.record), sources: []netip.Addr{loopback}, retries: tc.retries,
			}, socket(t))
			assert.Equal(t, tc.sent, a.Sent)
			var out bytes.Buffer
			a.print(&out)
			for _, s := range tc.says {
				assert.Contains(t, strings.ToLower(out.String()), strings.ToLower(s))
			}
			_, err := json.Marshal(a)
			require.NoError(t, err)
		})
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	a, err := rlocTo(loopback)
	require.NoError(t, err)
	assert.Equal(t, loopback, a)
	o := options{source: "192.0.2.1,2001:db8::1"}
	as, err := o.sources(loopback, nil)
	require.NoError(t, err)
	assert.Len(t, as, 2)
	o.source = "x"
	_, err = o.sources(loopback, nil)
	require.ErrorContains(t, err, "-source: ")
}

func TestCommandLine(t *testing.T) {
	t.Chdir(t.TempDir()) // where there is nothing
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"", daemon.ExitUsage, "exactly one EID is needed"},
		{"-c 6 192.0.2.1", daemon.ExitUsage, "-c is from 1 to 5"},
		{"-r 11 192.0.2.1", daemon.ExitUsage, "-r is from 0 to 10"},
		{"-iid 16777216 192.0.2.1", daemon.ExitUsage, "-iid has 24 bits"},
		{"-x", daemon.ExitUsage, "not defined"},
		{"-help", daemon.ExitOK, "Usage: lig"},
		{"-version", daemon.ExitOK, "lig "},
		{"-f none 192.0.2.1", daemon.ExitUsage, "no Map-Resolver: give one with -m: configuration file"},
		{"-m , 192.0.2.1", daemon.ExitFailure, "no Map-Resolver"},
		{"-m 192.0.2.1 224.0.0.1", daemon.ExitUsage, "224.0.0.1 is the address of no host"},
		{"-m 192.0.2.1 ::", daemon.ExitUsage, ":: is the address of no host"},
		{"-m 192.0.2.1 fe80::1%lo", daemon.ExitUsage, "fe80::1%lo is the address of no host"},
		{"-m 192.0.2.1 -s none self", daemon.ExitFailure, "whose EIDs self are is known by lispmn: nothing runs at"},
	} {
		var out bytes.Buffer
		assert.Equal(t, tc.code, run(t.Context(), strings.Fields(tc.args), &out, &out), tc.args)
		assert.Contains(t, out.String(), tc.says, tc.args)
	}
	assert.Equal(t, "1.5 ms", milli(1500*time.Microsecond))
}
