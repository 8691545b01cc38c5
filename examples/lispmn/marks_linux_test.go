package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// perFlow is how many datagrams a test sends to a port.
const perFlow = 20

// wire is where a data packet was seen: the uplink it left by, and where it went.
type wire struct {
	uplink string
	port   uint16 // inner destination port
	v6     bool   // inner
}

// uplinkCapture records what leaves the uplinks of a host.
type uplinkCapture struct {
	file string
	*netlab.Capture
}

func captureUplinks(t *testing.T, h *netlab.Host) *uplinkCapture {
	t.Helper()
	file := filepath.Join(t.TempDir(), "uplinks.pcapng")
	c, err := h.Capture(file)
	require.NoError(t, err)
	return &uplinkCapture{file, c}
}

// each ends the capture and calls f for each data packet that left an uplink.
func (c *uplinkCapture) each(t *testing.T, f func(uplink string, outer gopacket.Packet, inner gopacket.Packet)) {
	t.Helper()
	require.NoError(t, c.Stop())
	file, err := os.Open(c.file)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	r, err := pcapgo.NewNgReader(file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	require.NoError(t, err)
	for {
		b, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		i, err := r.Interface(ci.InterfaceIndex)
		require.NoError(t, err)
		if !strings.HasPrefix(i.Name, "eth") {
			continue
		}
		outer := gopacket.NewPacket(b, layers.LinkTypeEthernet, gopacket.Default)
		udp, ok := outer.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || udp.DstPort != 4341 || len(udp.Payload) < 9 {
			continue
		}
		first := gopacket.Decoder(layers.LayerTypeIPv4)
		if udp.Payload[8]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
		f(i.Name, outer, gopacket.NewPacket(udp.Payload[8:], first, gopacket.Default))
	}
}

// leftBy ends the capture and counts by uplink and inner destination port. What
// left an uplink has its address.
func (c *uplinkCapture) leftBy(t *testing.T) map[wire]int {
	t.Helper()
	addrs := map[string]string{"eth0": multiA.rloc[ipv4], "eth1": multiA.more[0].addr}
	counts := map[wire]int{}
	c.each(t, func(uplink string, outer, inner gopacket.Packet) {
		src := outer.NetworkLayer().NetworkFlow().Src().String()
		if src != multiA.rloc[ipv4] && src != multiA.more[0].addr {
			return // came in
		}
		assert.Equal(t, addrs[uplink], src, "from the address of its uplink")
		if udp, ok := inner.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
			_, v6 := inner.NetworkLayer().(*layers.IPv6)
			counts[wire{uplink, uint16(udp.DstPort), v6}]++
		}
	})
	return counts
}

// sender sends datagrams from a host to b.
type sender struct {
	t    *testing.T
	d    *demoLab
	from *netlab.Host
}

// send sends perFlow datagrams to a port of an EID of b and returns how many
// arrive; it waits for as many as want.
func (s sender) send(family int, port, dscp, want int) (got int) {
	s.t.Helper()
	to := net.JoinHostPort(siteB.eid[family], fmt.Sprint(port))
	in, err := s.d.hosts["b"].ListenPacket("udp", to)
	require.NoError(s.t, err)
	defer func() { _ = in.Close() }()
	require.NoError(s.t, s.from.Do(func() error {
		dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			if e := c.Control(func(fd uintptr) {
				level, option := unix.IPPROTO_IP, unix.IP_TOS
				if family == ipv6 {
					level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
				}
				err = unix.SetsockoptInt(int(fd), level, option, dscp<<2)
			}); e != nil {
				return e
			}
			return err
		}}
		c, err := dialer.DialContext(s.t.Context(), "udp", to)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		for range perFlow {
			if _, err := c.Write([]byte("x")); err != nil && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ECONNREFUSED) {
				return err // an ICMP error about an earlier one is no surprise
			}
		}
		return nil
	}))
	buf := make([]byte, 100)
	require.NoError(s.t, in.SetReadDeadline(time.Now().Add(time.Minute)))
	for got < want {
		_, _, err := in.ReadFrom(buf)
		require.NoError(s.t, err, "port %d: %d of %d", port, got, want)
		got++
	}
	return got
}

// traffic of a node, when f says that it shows what it should.
func awaitTraffic(t *testing.T, d *demoLab, name, what string, f func(statusd.Traffic) bool) statusd.Traffic {
	t.Helper()
	var last statusd.Traffic
	err := netlab.Eventually(t.Context(), what, func() bool {
		st, err := d.children[name].ready(t.Context())
		require.NoError(t, err)
		last = st.Node.Traffic
		return f(last)
	})
	require.NoError(t, err, "%+v", last)
	return last
}

// ruleList is the policy routing of a host.
func ruleList(h *netlab.Host) string {
	return h.MustRun("ip", "rule") + h.MustRun("ip", "-6", "rule")
}

const marksOn = "firewall-marks { mask = 0xffff unusable = fallback }\n"

// onBoth runs a test with packets forwarded in the kernel, if it lets us, and in
// user space. It is given a line of the configuration.
func onBoth(t *testing.T, f func(t *testing.T, plane string)) {
	t.Parallel()
	for _, plane := range []string{"ebpf", "user"} {
		t.Run(plane, func(t *testing.T) {
			if err := ebpf.Probe(); err != nil && plane == "ebpf" {
				t.Skip(err)
			}
			f(t, "dataplane = "+plane+"\n")
		})
	}
}

// assertKernel checks that the kernel forwarded more than so many packets if it was to.
func assertKernel(t *testing.T, plane string, tr statusd.Traffic, packets uint64) {
	t.Helper()
	if !strings.Contains(plane, "ebpf") {
		assert.Nil(t, tr.Kernel)
		return
	}
	if assert.NotNil(t, tr.Kernel) {
		t.Logf("encapsulated %d, %d in the kernel, slow %v", tr.Encapsulated.Packets, tr.Kernel.Encapsulated.Packets, tr.Kernel.Slow)
		assert.Greater(t, tr.Kernel.Encapsulated.Packets, packets)
	}
}

// TestMarks: a firewall mark that is the index of an uplink steers packets there,
// whatever the host does about reverse paths; one that names nothing usable falls
// back, counted.
func TestMarks(t *testing.T) { onBoth(t, testMarks) }

func testMarks(t *testing.T, plane string) {
	d := multihomeLab(t)
	a := d.hosts["a"]
	startNodes(t, d, func(s site) string { return d.patternConfig(s, plane+marksOn) }, multiA, multiB)
	eth0, eth1 := uint32(d.links["a/eth0"].A.Index), uint32(d.links["a/eth1"].A.Index)
	capture, s := captureUplinks(t, a), sender{t, d, a}
	fallbacks := uint64(0)
	for rp := range 3 {
		for _, name := range []string{"all", "eth0", "eth1", "lmn0"} {
			a.Sysctl("net/ipv4/conf/"+name+"/rp_filter", fmt.Sprint(rp))
		}
		port := 1000 * (rp + 1)
		a.SetMark(uint16(port+1), eth0)
		a.SetMark(uint16(port+2), 0xab0000|eth1) // the upper bits are somebody else's
		a.SetMark(uint16(port+3), 0x7777)
		a.SetMark(uint16(port+4), 0xab0000)
		for _, family := range []int{ipv4, ipv6} {
			for i := range 5 {
				s.send(family, port+i, 0, perFlow)
			}
			fallbacks += perFlow
		}
	}
	tr := awaitTraffic(t, d, "a", "fallbacks", func(tr statusd.Traffic) bool { return tr.PolicyFallbacks >= fallbacks })
	assert.Equal(t, fallbacks, tr.PolicyFallbacks)
	assert.Zero(t, tr.Drops["policy"])
	assertKernel(t, plane, tr, 3*2*2*perFlow) // those without a mark within the mask
	left := capture.leftBy(t)
	for rp := range 3 {
		port := uint16(1000 * (rp + 1))
		for _, v6 := range []bool{false, true} {
			assert.Equal(t, perFlow, left[wire{"eth0", port + 1, v6}], "rp_filter %d, %v", rp, left)
			assert.Zero(t, left[wire{"eth1", port + 1, v6}])
			assert.Equal(t, perFlow, left[wire{"eth1", port + 2, v6}], "rp_filter %d, %v", rp, left)
			assert.Zero(t, left[wire{"eth0", port + 2, v6}])
			for _, p := range []uint16{port, port + 3, port + 4} {
				assert.Equal(t, perFlow, left[wire{"eth0", p, v6}]+left[wire{"eth1", p, v6}], "port %d", p)
			}
		}
	}

	// The uplink that is named goes: its packets fall back, and come back with it.
	mark := d.log.mark()
	require.NoError(t, unplug("a", "eth1")(t.Context(), d))
	awaitUplink(t, d, multiA.more[0].addr, false)
	capture = captureUplinks(t, a)
	s.send(ipv4, 1002, 0, perFlow)
	tr = awaitTraffic(t, d, "a", "fallbacks", func(tr statusd.Traffic) bool { return tr.PolicyFallbacks >= fallbacks+perFlow })
	assert.Equal(t, fallbacks+perFlow, tr.PolicyFallbacks)
	assert.Equal(t, map[wire]int{{"eth0", 1002, false}: perFlow}, capture.leftBy(t))
	require.NoError(t, plugIn("a", "eth1")(t.Context(), d))
	awaitUplink(t, d, multiA.more[0].addr, true)
	awaitRegistered(t, d, mark, multiA)
	// Until a probe has been answered nothing leaves by it.
	require.NoError(t, netlab.Eventually(t.Context(), "the path by eth1", func() bool {
		was := tr.PolicyFallbacks
		s.send(ipv4, 1002, 0, perFlow)
		tr = awaitTraffic(t, d, "a", "status", func(statusd.Traffic) bool { return true })
		return tr.PolicyFallbacks == was
	}))
	capture = captureUplinks(t, a)
	s.send(ipv4, 1002, 0, perFlow)
	assert.Equal(t, map[wire]int{{"eth1", 1002, false}: perFlow}, capture.leftBy(t))
	do(t, d, stopMultihomed)
}

// awaitUplink waits until a locator of a is up, or not.
func awaitUplink(t *testing.T, d *demoLab, addr string, up bool) {
	t.Helper()
	require.NoError(t, netlab.Eventually(t.Context(), fmt.Sprintf("%s to be up: %v", addr, up), func() bool {
		st, err := d.children["a"].ready(t.Context())
		require.NoError(t, err)
		for _, l := range st.Node.Locals {
			if l.Addr == netip.MustParseAddr(addr) {
				return l.Up == up
			}
		}
		return false
	}))
}

// TestMarksDrop: packets whose mark names nothing usable are dropped if the
// configuration wants it, and counted.
func TestMarksDrop(t *testing.T) { onBoth(t, testMarksDrop) }

func testMarksDrop(t *testing.T, plane string) {
	d := multihomeLab(t)
	a := d.hosts["a"]
	startNodes(t, d, func(s site) string {
		return d.patternConfig(s, plane+strings.Replace(marksOn, "fallback", "drop", 1))
	}, multiA, multiB)
	a.SetMark(1003, 0x7777)
	s, capture := sender{t, d, a}, captureUplinks(t, a)
	s.send(ipv4, 1000, 0, perFlow) // there is a mapping now
	s.send(ipv6, 1000, 0, perFlow)
	for i, family := range []int{ipv4, ipv6} {
		s.send(family, 1003, 0, 0)
		dropped := uint64(perFlow * (i + 1))
		tr := awaitTraffic(t, d, "a", "drops", func(tr statusd.Traffic) bool { return tr.Drops["policy"] >= dropped })
		assert.Equal(t, dropped, tr.Drops["policy"])
		assert.Zero(t, tr.PolicyFallbacks)
	}
	for w := range capture.leftBy(t) {
		assert.NotEqual(t, uint16(1003), w.port)
	}
	do(t, d, stopMultihomed)
}

// TestMarksOfARouter: what hosts behind an xTR send is steered by the mark that
// the xTR gives it.
func TestMarksOfARouter(t *testing.T) { onBoth(t, testMarksOfARouter) }

func testMarksOfARouter(t *testing.T, plane string) {
	d := multihomeLab(t)
	a, h := d.hosts["a"], d.lab.Host("h")
	d.lab.Link(h, a, netlab.LinkConfig{A: netlab.At("198.18.1.10/24"), B: netlab.End{Name: "lan0", Addrs: []string{"198.18.1.1/24"}}})
	h.DefaultVia("198.18.1.1")
	require.NoError(t, d.lab.Err())
	startNodes(t, d, func(s site) string { return d.patternConfig(s, "") }, multiB)
	_, err := d.start(t.Context(), "a", fmt.Sprintf(`operating-mode = xTR
control-socket = %q
state-file = %q
rloc-probing { rloc-probe-interval = 0 }
static-map-cache { eid-prefix = %s/32 rloc-address { address = %s } rloc-address { address = %s } }
database-mapping { eid-prefix = 198.18.1.0/24 rloc-iface { interface = 'eth*' } }
%s`, filepath.Join(d.dir, "a.sock"), filepath.Join(d.dir, "a.state"), multiB.eid[ipv4], multiB.rloc[ipv4], multiB.more[0].addr, plane+marksOn))
	require.NoError(t, err)
	_, err = d.children["a"].ready(t.Context())
	require.NoError(t, err)
	a.SetMark(1001, uint32(d.links["a/eth0"].A.Index))
	a.SetMark(1002, uint32(d.links["a/eth1"].A.Index))
	s, capture := sender{t, d, h}, captureUplinks(t, a)
	s.send(ipv4, 1001, 0, perFlow)
	s.send(ipv4, 1002, 0, perFlow)
	assert.Equal(t, map[wire]int{{"eth0", 1001, false}: perFlow, {"eth1", 1002, false}: perFlow}, capture.leftBy(t))
	require.NoError(t, d.children["a"].stop())
	require.NoError(t, d.checkClean(multiA))
}

// TestUplinkPolicies: packets leave by uplinks that their DSCP or their prefix names.
func TestUplinkPolicies(t *testing.T) {
	d := multihomeLab(t)
	startNodes(t, d, func(s site) string {
		return d.patternConfig(s, `uplink-policy { dscp = { 46, 34 } interface = { 'eth[1-9]' } }
uplink-policy { source = { 192.0.2.0/24 } destination = { 192.0.2.0/28, 198.51.100.0/24 } interface = { ppp0, eth0 } }
uplink-policy { source = { 2001:db8::/32 } dscp = { 8 } unusable = drop }
`)
	}, multiA, multiB)
	s, capture := sender{t, d, d.hosts["a"]}, captureUplinks(t, d.hosts["a"])
	for _, family := range []int{ipv4, ipv6} {
		s.send(family, 1000, 0, perFlow)
		s.send(family, 1046, 46, perFlow)
	}
	s.send(ipv4, 1008, 8, perFlow)
	s.send(ipv6, 1008, 8, 0)
	awaitTraffic(t, d, "a", "drops", func(tr statusd.Traffic) bool { return tr.Drops["policy"] == perFlow })
	left := capture.leftBy(t)
	v6 := wire{"eth0", 1000, true} // as without policy
	assert.Equal(t, perFlow, left[v6]+left[wire{"eth1", 1000, true}])
	delete(left, v6)
	delete(left, wire{"eth1", 1000, true})
	assert.Equal(t, map[wire]int{
		{"eth0", 1000, false}: perFlow, {"eth1", 1046, false}: perFlow, {"eth1", 1046, true}: perFlow, {"eth0", 1008, false}: perFlow,
	}, left)
	do(t, d, stopMultihomed)
}

// TestMarksRepaired: rules, routes and devices for marks and uplinks that another
// program removes are back without anybody asking, and so they are after kill -9.
// The user's own stay.
func TestMarksRepaired(t *testing.T) { onBoth(t, testMarksRepaired) }

func testMarksRepaired(t *testing.T, plane string) {
	d := multihomeLab(t)
	a := d.hosts["a"]
	a.MustRun("ip", "rule", "add", "pref", "4000", "fwmark", "0x99", "lookup", "99")
	startNodes(t, d, func(s site) string { return d.patternConfig(s, plane+marksOn) }, multiA, multiB)
	eth0, eth1 := d.links["a/eth0"].A.Index, d.links["a/eth1"].A.Index
	a.SetMark(1001, uint32(eth0))
	a.SetMark(1002, uint32(eth1))
	s := sender{t, d, a}
	whole := func() string { // in no order: rules of one priority exclude each other
		lines := strings.Split(ruleList(a)+a.MustRun("ip", "route", "show", "table", "all", "proto", "245"), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	running := whole()
	require.Contains(t, running, "lmn0-2")
	for _, args := range []string{
		"rule del pref 4341", "-6 rule del pref 4342", "rule del pref 4345",
		fmt.Sprintf("rule del pref %d", 32764), fmt.Sprintf("route flush table %d", 434100+eth1),
		"route flush table 4341", "route flush table 43410001", "link del lmn0-2", "link set lmn0-1 down",
	} {
		began := time.Now()
		require.NoError(t, ip("a", args)(t.Context(), d))
		err := netlab.Eventually(t.Context(), args+": all to be back", func() bool { return whole() == running })
		require.NoError(t, err, "%s\nnow:\n%s\nbefore:\n%s", args, whole(), running)
		t.Logf("ip %s: back after %v", args, time.Since(began).Round(time.Millisecond))
	}
	steers := func() {
		capture := captureUplinks(t, a)
		s.send(ipv4, 1001, 0, perFlow)
		s.send(ipv6, 1002, 0, perFlow)
		assert.Equal(t, map[wire]int{{"eth0", 1001, false}: perFlow, {"eth1", 1002, true}: perFlow}, capture.leftBy(t))
	}
	steers()

	mark := d.log.mark()
	d.children["a"].kill()
	require.Contains(t, whole(), "fwmark", "the rules of the killed node are there")
	require.NoError(t, d.children["a"].start(t.Context()))
	awaitRegistered(t, d, mark, multiA)
	assert.Equal(t, running, whole())
	steers()
	require.NoError(t, d.children["a"].stop())
	assert.Contains(t, ruleList(a), "4000:\tfrom all fwmark 0x99 lookup 99")
	a.MustRun("ip", "rule", "del", "pref", "4000")
	require.NoError(t, d.checkClean(multiA))
}

// TestWeights: 10,000 flows leave by uplinks, and go to locators, as the weights
// 75 and 25 of both say. The flow hash has a fixed seed.
func TestWeights(t *testing.T) {
	const flows = 10_000
	d := multihomeLab(t)
	startNodes(t, d, func(s site) string {
		iface := "rloc-iface {\n interface = eth%d\n priority = 1\n weight = %d\n }\n"
		return strings.ReplaceAll(d.patternConfig(s, ""), "rloc-iface {\n interface = 'eth*'\n priority = 1\n ip_version = 4\n }\n",
			fmt.Sprintf(iface, 0, 75)+fmt.Sprintf(iface, 1, 25))
	}, multiA, multiB)
	a := d.hosts["a"]
	sender{t, d, a}.send(ipv4, 999, 0, perFlow) // there is a mapping now
	capture := captureUplinks(t, a)
	require.NoError(t, a.Do(func() error {
		for i := range flows {
			d := net.Dialer{LocalAddr: &net.UDPAddr{Port: 20000 + i}}
			c, err := d.DialContext(context.Background(), "udp4", net.JoinHostPort(siteB.eid[ipv4], "7"))
			if err != nil {
				return err
			}
			_, _ = c.Write([]byte("x")) // that nobody listens there is no matter
			_ = c.Close()
		}
		return nil
	}))
	awaitTraffic(t, d, "a", "all flows", func(tr statusd.Traffic) bool { return tr.Encapsulated.Packets >= flows+perFlow })
	counts, total := map[string]int{}, 0
	capture.each(t, func(uplink string, outer, inner gopacket.Packet) {
		udp, ok := inner.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || udp.DstPort != 7 {
			return
		}
		total++
		counts["by "+uplink]++
		counts["to "+outer.NetworkLayer().NetworkFlow().Dst().String()]++
	})
	t.Logf("%d flows: %v", total, counts)
	require.Equal(t, flows, total)
	for name, share := range map[string]float64{
		"by eth0": 75, "by eth1": 25, "to " + multiB.rloc[ipv4]: 75, "to " + multiB.more[0].addr: 25,
	} {
		assert.InDelta(t, share, 100*float64(counts[name])/float64(total), 2, name)
	}
	do(t, d, stopMultihomed)
}

// TestRefusedIsTriedAgain: what the system refuses is tried again, without
// anything happening, until it is done. The status says so, and the log a few times.
func TestRefusedIsTriedAgain(t *testing.T) {
	d := multihomeLab(t)
	a := d.hosts["a"]
	startNodes(t, d, func(s site) string { return d.patternConfig(s, marksOn) }, multiA)
	node := d.children["a"]
	refused := func() []statusd.Refusal {
		st, err := node.ready(t.Context())
		require.NoError(t, err)
		return st.Node.Refused
	}
	require.Empty(t, refused())
	a.Sysctl("net/ipv6/conf/lmn0/disable_ipv6", "1") // takes the EID along
	require.NoError(t, netlab.Eventually(t.Context(), "three tries", func() bool {
		l := refused()
		return len(l) == 1 && l[0].What == "repair of what was removed" && l[0].Tries >= 3 && strings.Contains(l[0].Reason, multiA.eid[ipv6])
	}))
	a.Sysctl("net/ipv6/conf/lmn0/disable_ipv6", "0")
	require.NoError(t, netlab.Eventually(t.Context(), "the EID", func() bool {
		return strings.Contains(a.MustRun("ip", "-6", "addr", "show", "dev", "lmn0"), multiA.eid[ipv6])
	}))
	require.NoError(t, netlab.Eventually(t.Context(), "nothing to be refused", func() bool { return len(refused()) == 0 }))
	log := node.logTail(10_000)
	assert.Contains(t, log, "the system refused a change")
	assert.Equal(t, 1, strings.Count(log, "the system no longer refuses a change"))
	require.NoError(t, node.stop())
	require.NoError(t, d.checkClean(multiA))
}
