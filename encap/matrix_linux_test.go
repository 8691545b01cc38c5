package encap

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

// matrix is two hosts a and b with our data plane, and a router between them
// whose link to b may be small.
type matrix struct {
	lab    *netlab.Lab
	hosts  [2]*netlab.Host
	uplink [2]*netlab.Link
	xtrs   [2]*xtr
}

// newMatrix makes the hosts with the EIDs 10.n.0.1 and fd00:n::1, behind IPv4
// locators, and 10.n.1.1 and fd00:n:1::1, behind IPv6 ones.
func newMatrix(t *testing.T, f mapcache.Format, mtu int, change ...func(host int, c *Config)) *matrix {
	t.Helper()
	m := &matrix{lab: netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)}
	r := m.lab.Router("r")
	for i := range 2 {
		n := fmt.Sprint(i + 1)
		m.hosts[i] = m.lab.Host([]string{"a", "b"}[i])
		cfg := netlab.LinkConfig{
			A: netlab.At("198.51."+n+".2/24", "2001:db8:"+n+"::2/64"), B: netlab.At("198.51."+n+".1/24", "2001:db8:"+n+"::1/64"),
			NoOffload: true, // what is captured is as on a real wire
		}
		if i == 1 {
			cfg.MTU = mtu
		}
		m.uplink[i] = m.lab.Link(m.hosts[i], r, cfg)
		m.hosts[i].DefaultVia("198.51."+n+".1", "2001:db8:"+n+"::1")
	}
	for i := range 2 {
		me, peer := fmt.Sprint(i+1), fmt.Sprint(2-i)
		var ms []mapcache.Mapping
		for _, e := range [][2]string{
			{"10." + peer + ".0.1/32", "198.51." + peer + ".2"},
			{"fd00:" + peer + "::1/128", "198.51." + peer + ".2"},
			{"10." + peer + ".1.1/32", "2001:db8:" + peer + "::2"},
			{"fd00:" + peer + ":1::1/128", "2001:db8:" + peer + "::2"},
		} {
			mapping := mapPrefix(e[0], e[1])
			mapping.RLOCs[0].Format = f
			ms = append(ms, mapping)
		}
		m.xtrs[i] = newXTR(t, m.uplink[i].A, []string{"198.51." + me + ".2", "2001:db8:" + me + "::2"}, xtrConfig{
			eids:     []string{"10." + me + ".0.1/32", "fd00:" + me + "::1/128", "10." + me + ".1.1/32", "fd00:" + me + ":1::1/128"},
			mappings: ms, tun: tun.Config{}, udp: UDPConfig{VXLANGPE: f == mapcache.FormatVXLANGPE},
			change: func(c *Config) {
				icmp, err := NewICMP()
				require.NoError(t, err)
				c.ICMP = icmp
				for _, f := range change {
					f(i, c)
				}
			},
		})
	}
	return m
}

// matrixFlows are the EIDs of a and b in the four combinations of families.
var matrixFlows = []struct{ name, a, b, rloc string }{
	{"IPv4 in IPv4", "10.1.0.1", "10.2.0.1", "198.51.2.2"},
	{"IPv6 in IPv4", "fd00:1::1", "fd00:2::1", "198.51.2.2"},
	{"IPv4 in IPv6", "10.1.1.1", "10.2.1.1", "2001:db8:2::2"},
	{"IPv6 in IPv6", "fd00:1:1::1", "fd00:2:1::1", "2001:db8:2::2"},
}

// datagrams sends UDP datagrams of the given sizes of payload and waits for each.
// With discover the host sets DF and finds out the path MTU, which makes it
// fragment, or refuse; without, IPv4 leaves fragmentation to the network.
type datagrams struct {
	from, to *net.UDPConn
	buf      []byte
}

func newDatagrams(t *testing.T, from, to *netlab.Host, src, dst string, df bool) *datagrams {
	t.Helper()
	open := func(h *netlab.Host, a string) *net.UDPConn {
		c, err := h.ListenPacket("udp", net.JoinHostPort(a, "0"))
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c.(*net.UDPConn)
	}
	d := &datagrams{open(from, src), open(to, dst), make([]byte, 65536)}
	require.NoError(t, d.to.SetReadBuffer(1<<20))
	raw, err := d.from.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20))
		if addr(src).Is4() {
			how := unix.IP_PMTUDISC_DONT
			if df {
				how = unix.IP_PMTUDISC_WANT
			}
			require.NoError(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how))
		}
	}))
	return d
}

// exchange sends n octets until they arrive: a lost one teaches the sender the
// path MTU.
func (d *datagrams) exchange(t *testing.T, n int) {
	t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * n)
	}
	deadline := time.Now().Add(waitTime)
	for try := 0; ; try++ {
		_, err := d.from.WriteTo(b, d.to.LocalAddr())
		require.NoError(t, err)
		require.NoError(t, d.to.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		got, _, err := d.to.ReadFrom(d.buf)
		if err != nil && time.Now().Before(deadline) {
			continue
		}
		require.NoError(t, err, "%d octets after %d tries", n, try)
		if got != n {
			continue // a late one of the size before
		}
		require.Equal(t, b, d.buf[:got])
		return
	}
}

// All four combinations of families in each format: every inner size, datagrams
// that the host fragments, ping and TCP, over a path of full size and through a
// router with a smaller MTU; and what is on the wire is as it should be.
func TestMatrix(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if os.Getenv("XTRKIT_REQUIRE_TSHARK") == "1" {
		require.NoError(t, err)
	}
	for _, format := range []mapcache.Format{mapcache.FormatLISP, mapcache.FormatGPE} {
		for _, mtu := range []int{1500, 1400, 1280} {
			t.Run(fmt.Sprintf("%v MTU %d", format, mtu), func(t *testing.T) {
				m := newMatrix(t, format, mtu)
				file := filepath.Join(t.TempDir(), "b.pcapng")
				capture, err := m.hosts[1].Capture(file)
				require.NoError(t, err)
				for _, f := range matrixFlows {
					m.flow(t, f.a, f.b, f.rloc, mtu)
				}
				require.NoError(t, capture.Stop())
				if tshark != "" {
					judge(t, tshark, file)
				}
				if mtu == 1280 {
					assert.NotZero(t, m.xtrs[0].Stats().OuterFragmented, "IPv6 packets of up to 1280 octets")
				}
				for _, x := range m.xtrs {
					s := x.Stats()
					s.Drops[DropTooBig] = 0 // what taught the sources the path MTU
					assert.Equal(t, [NumDropReasons]uint64{}, s.Drops)
				}
			})
		}
	}
}

// flow exchanges what there is between two EIDs.
func (m *matrix) flow(t *testing.T, a, b, rloc string, mtu int) {
	t.Helper()
	src := addr(a)
	header, largest := 28, 65507
	if src.Is6() {
		header, largest = 48, 65527
	}
	room := m.xtrs[0].tun.MTU() - header        // of lmn0
	path := mtu - Overhead(addr(rloc)) - header // of the tunnel
	for _, df := range []bool{true, false} {
		if src.Is6() && !df {
			continue
		}
		d := newDatagrams(t, m.hosts[0], m.hosts[1], a, b, df)
		sizes := []int{0, 1, 2, 3, 7, 8, 100, path - 1, path, path + 1, room - 1, room, room + 1, 2*room + 1, 9000, 30000, largest}
		for n := 64; n < room; n += 97 {
			sizes = append(sizes, n)
		}
		for _, n := range sizes {
			d.exchange(t, n)
		}
	}
	size := fmt.Sprint(room)
	m.hosts[1].MustRun("ping", "-c", "2", "-i", "0.01", "-W", "60", "-s", size, "-I", b, a)
	m.hosts[0].MustRun("ping", "-c", "2", "-i", "0.01", "-W", "60", "-s", "0", "-I", a, b)
	transfer(t, m.hosts[0], m.hosts[1], a, b, 1<<20)
	transfer(t, m.hosts[1], m.hosts[0], b, a, 1<<20)
}

// ourLayers matches what is said of malformed headers. A payload is nobody's format,
// whatever its port suggests.
var ourLayers = regexp.MustCompile(`(?i)malformed packet: (eth|ip|ipv6|udp|tcp|icmp|icmpv6|lisp.*|vxlan.*)\]`)

// judge has Wireshark's dissectors look at a capture.
func judge(t *testing.T, tshark, file string) {
	t.Helper()
	out, err := exec.Command(tshark, "-r", file, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-Y", "udp.port == 4341 && udp", "-T", "fields", "-e", "frame.number", "-e", "_ws.malformed",
		"-e", "ip.checksum.status", "-e", "udp.checksum.status", "-e", "tcp.checksum.status").Output()
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Greater(t, len(lines), 100)
	for _, line := range lines {
		f := strings.Split(line, "\t")
		require.Len(t, f, 5)
		bad := ourLayers.MatchString(f[1])
		for _, status := range f[2:] {
			bad = bad || slices.Contains(strings.Split(status, ","), "0") || strings.Contains(status, "Bad")
		}
		assert.False(t, bad, "frame %s: malformed %q, checksums %q", f[0], f[1], f[2:])
	}
}
