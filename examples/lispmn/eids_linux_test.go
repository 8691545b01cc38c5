package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// TestEIDsChange: a node gets another IPv4 EID, and its old one back, while packets
// of its IPv6 EID pass: none of these is lost, and what belongs to an EID comes and
// goes with it.
func TestEIDsChange(t *testing.T) {
	t.Parallel()
	for _, plane := range []string{"user", "ebpf"} {
		t.Run(plane, func(t *testing.T) {
			if err := ebpf.Probe(); plane == "ebpf" && err != nil {
				t.Skip(err)
			}
			testEIDsChange(t, "dataplane = "+plane+"\n")
		})
	}
}

func testEIDsChange(t *testing.T, more string) {
	d := testLab(t, demoOptions{})
	ctx := t.Context()
	other := siteA
	other.eid[ipv4] = "192.0.2.11"
	ms, err := d.start(ctx, siteMS.name, d.mapServerConfig()+fmt.Sprintf(
		"lisp-site {\n    name = %s\n    eid-prefix = %s\n    key-type = 2\n    key = %q\n}\n", siteA.registered, other.eid[ipv4], siteA.key), argMapServer)
	require.NoError(t, err)
	_, err = ms.ready(ctx)
	require.NoError(t, err)
	mark := d.log.mark()
	for _, s := range []site{siteA, siteB} {
		_, err := d.start(ctx, s.name, d.nodeConfig(s, ipv4)+more)
		require.NoError(t, err)
	}
	for _, s := range []site{siteA, siteB} {
		_, err := d.children[s.name].ready(ctx)
		require.NoError(t, err)
		require.NoError(t, d.registered(ctx, mark, s, ipv4))
	}
	do(t, d, firstPing(ipv4, ipv4), firstPing(ipv6, ipv4))

	conn, err := d.hosts["a"].ListenPacket("ip6:ipv6-icmp", "::")
	require.NoError(t, err)
	defer conn.Close()
	type pings struct {
		sent, received int
		err            error
	}
	pinged, enough := make(chan pings, 1), make(chan struct{})
	go func() {
		var all pings
		for ended := false; !ended && all.err == nil; { // 300 at 10 ms, and as many again until all has been done
			select {
			case <-enough:
				ended = true
			default:
			}
			var r probe.PingResult
			r, all.err = probe.Ping(ctx, conn, siteB.eidAddr(ipv6), probe.PingConfig{Count: 300, Interval: 10 * time.Millisecond, Wait: time.Minute})
			all.sent, all.received = all.sent+r.Sent, all.received+r.Received
		}
		pinged <- all
	}()

	a := d.children["a"]
	c := a.client()
	database := func(action, prefix string) error {
		var none statusd.Nothing
		return c.Do(ctx, action, statusd.Change{Table: "database", Prefix: netip.MustParsePrefix(prefix)}, &none)
	}
	atServer := func(what, eid string) {
		t.Helper()
		_, err := d.log.await(ctx, mark, siteMS.name, what, contains(eid+"/32"))
		require.NoError(t, err)
	}

	// What cannot be changes nothing.
	require.EqualError(t, database(statusd.ActionAdd, "192.0.2.11/32"), "a mobile node has one EID per address family: 192.0.2.1/32 (line 11) or 192.0.2.11/32")
	require.EqualError(t, database(statusd.ActionDel, "192.0.2.99/32"), "there is no such entry")
	mark = d.log.mark()
	require.NoError(t, database(statusd.ActionDel, "192.0.2.1/32"))
	atServer("withdrawn", "192.0.2.1")
	require.EqualError(t, database(statusd.ActionAdd, "10.0.1.2/32"), "the EID-Prefix 10.0.1.2/32 holds the locator 10.0.1.2: an EID is no locator")
	assert.Equal(t, []string{siteA.eid[ipv6]}, eidsOn(t, d, "a"))
	assert.Empty(t, rulesOf(t, d, "a", netlink.FAMILY_V4))
	var tr statusd.Trace
	require.ErrorContains(t, c.Do(ctx, statusd.ActionTrace, statusd.Flow{Dst: siteB.eidAddr(ipv4)}, &tr), "the node has no EID of the family of 192.0.2.2")

	// Another one, by hand.
	mark = d.log.mark()
	require.NoError(t, database(statusd.ActionAdd, "192.0.2.11/32"))
	atServer("registered", other.eid[ipv4])
	answers(t, d, "b", "a", other.eidAddr(ipv4))
	answers(t, d, "a", "b", siteB.eidAddr(ipv4))
	assert.ElementsMatch(t, other.eid[:], eidsOn(t, d, "a"))
	before := rulesOf(t, d, "a", netlink.FAMILY_V4)
	assert.True(t, slices.ContainsFunc(before, func(r string) bool { return strings.Contains(r, other.eid[ipv4]) }), before)
	st, err := a.ready(ctx)
	require.NoError(t, err)
	assert.ElementsMatch(t, []netip.Prefix{netip.PrefixFrom(siteA.eidAddr(ipv6), 128), netip.PrefixFrom(other.eidAddr(ipv4), 32)}, st.Node.EIDs)

	// The file says the old one still: it comes back at a stroke.
	mark = d.log.mark()
	var r statusd.Reloaded
	require.NoError(t, c.Do(ctx, statusd.ActionReload, statusd.Nothing{}, &r))
	assert.Equal(t, statusd.Reloaded{Changes: []string{
		"database-mapping: - 192.0.2.11/32 ttl 10m0s by eth0 IPv4 1/100",
		"database-mapping: + 192.0.2.1/32 ttl 10m0s by eth0 IPv4 1/100",
	}}, r)
	atServer("registered", siteA.eid[ipv4])
	atServer("withdrawn", other.eid[ipv4])
	answers(t, d, "b", "a", siteA.eidAddr(ipv4))
	assert.ElementsMatch(t, siteA.eid[:], eidsOn(t, d, "a"))
	var after []string
	for _, r := range before {
		after = append(after, strings.ReplaceAll(r, other.eid[ipv4], siteA.eid[ipv4]))
	}
	assert.ElementsMatch(t, after, rulesOf(t, d, "a", netlink.FAMILY_V4))

	// And the other one by a file that was edited.
	mark = d.log.mark()
	require.NoError(t, os.WriteFile(a.file(".conf"), []byte(d.nodeConfig(other, ipv4)+more), 0o600))
	r = statusd.Reloaded{}
	require.NoError(t, c.Do(ctx, statusd.ActionReload, statusd.Nothing{}, &r))
	require.Len(t, r.Changes, 2)
	require.Empty(t, r.Restart)
	atServer("registered", other.eid[ipv4])
	answers(t, d, "b", "a", other.eidAddr(ipv4))

	close(enough)
	got := <-pinged
	require.NoError(t, got.err)
	assert.Equal(t, got.sent, got.received, "packets of the other EID")
	t.Logf("%d pings of the other EID meanwhile", got.sent)
	require.NoError(t, a.stop())
	require.NoError(t, d.checkClean(siteA))
	require.NoError(t, d.checkClean(other))
}

// answers has a host ping another one until it answers five times in a row: a node
// may have to hear first that an EID is somewhere else.
func answers(t *testing.T, d *demoLab, from, dest string, to netip.Addr) {
	t.Helper()
	var r probe.PingResult
	require.Eventually(t, func() bool {
		var err error
		r, err = d.ping(t.Context(), from, dest, to, "")
		require.NoError(t, err)
		return r.Received == r.Sent
	}, time.Minute, 10*time.Millisecond, "%s to %v: %+v", from, to, &r)
}

// eidsOn are the addresses of the device of a host.
func eidsOn(t *testing.T, d *demoLab, host string) (as []string) {
	t.Helper()
	nl := d.hosts[host].Netlink()
	link, err := nl.LinkByName("lmn0")
	require.NoError(t, err)
	addrs, err := nl.AddrList(link, netlink.FAMILY_ALL)
	require.NoError(t, err)
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			as = append(as, a.IP.String())
		}
	}
	return as
}

// rulesOf are our policy rules on a host.
func rulesOf(t *testing.T, d *demoLab, host string, family int) (rs []string) {
	t.Helper()
	rules, err := d.hosts[host].Netlink().RuleList(family)
	require.NoError(t, err)
	for _, r := range rules {
		if r.Priority >= 4340 && r.Priority < 4347 {
			rs = append(rs, r.String())
		}
	}
	return rs
}
