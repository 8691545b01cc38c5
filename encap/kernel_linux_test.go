package encap

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

// pair is two hosts on one wire: a with our data plane and a TUN device, and
// what a test makes of b.
type pair struct {
	lab  *netlab.Lab
	a, b *netlab.Host
	link *netlab.Link
}

const (
	pairA4, pairB4 = "198.51.100.1", "198.51.100.2"
	pairA6, pairB6 = "2001:db8:a::1", "2001:db8:a::2"
)

func newPair(t *testing.T, cfg netlab.LinkConfig) *pair {
	t.Helper()
	p := &pair{lab: netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)}
	p.a, p.b = p.lab.Host("a"), p.lab.Host("b")
	cfg.A, cfg.B = netlab.At(pairA4+"/24", pairA6+"/64"), netlab.At(pairB4+"/24", pairB6+"/64")
	p.link = p.lab.Link(p.a, p.b, cfg)
	return p
}

// xtr is our data plane on a host, with a TUN device.
type xtr struct {
	*Forwarder
	cache *mapcache.Cache
	tun   *tun.Interface
}

// xtrConfig describes an xtr.
type xtrConfig struct {
	eids     []string
	tun      tun.Config
	udp      UDPConfig
	mappings []mapcache.Mapping
	change   func(*Config)
}

// newXTR runs our data plane on the host of an interface until the test ends.
func newXTR(t *testing.T, at *netlab.Interface, locators []string, cfg xtrConfig) *xtr {
	t.Helper()
	x := &xtr{cache: mapcache.New(mapcache.Config{})}
	for _, m := range cfg.mappings {
		m.TTL, m.Origin = mapcache.TTLForever, mapcache.OriginStatic
		require.NoError(t, x.cache.Insert(testTime, m))
	}
	x.cache.Publish()
	require.NoError(t, at.Host.Do(func() error {
		o := Overlay{}
		var routers []netip.Addr
		for _, e := range cfg.eids {
			o.EIDs = append(o.EIDs, prefix(e).Masked())
			cfg.tun.EIDs = append(cfg.tun.EIDs, prefix(e))
		}
		var err error
		x.tun, err = tun.Create(cfg.tun)
		require.NoError(t, err)
		o.Device = x.tun
		u, err := NewUDP(cfg.udp)
		require.NoError(t, err)
		native, err := NewNative()
		require.NoError(t, err)
		c := Config{Overlays: []Overlay{o}, View: x.cache.View, Underlay: u, Native: native}
		if cfg.change != nil {
			cfg.change(&c)
		}
		x.Forwarder, err = NewForwarder(c)
		require.NoError(t, err)
		var ls []mapcache.Local
		for _, s := range locators {
			ls = append(ls, mapcache.Local{IfIndex: at.Index, Addr: addr(s), Priority: 1, Weight: 1, Up: true})
			routers = append(routers, addr(s))
		}
		require.NoError(t, x.tun.SetLocals(routers))
		return x.SetLocals(ls)
	}))
	ended := make(chan error, 1)
	go func() { ended <- x.Run(context.Background()) }()
	t.Cleanup(func() {
		require.NoError(t, x.Close())
		require.NoError(t, <-ended)
	})
	return x
}

// kernelPeer makes a host a tunnel endpoint of the kernel: its VXLAN-GPE device
// on a UDP port, with EIDs of its own and ours behind our locators.
func kernelPeer(t *testing.T, h *netlab.Host, port string, iid int) {
	t.Helper()
	h.MustRun("ip", "link", "add", "vx", "type", "vxlan", "external", "gpe", "dstport", port, "udp6zerocsumrx")
	h.MustRun("ip", "link", "set", "vx", "mtu", "1400", "up")
	for _, a := range []string{"10.2.0.1/32", "fd00:2::1/128", "10.4.0.1/32", "fd00:4::1/128"} {
		h.MustRun("ip", "addr", "add", a, "dev", "lo", "nodad")
	}
	id := fmt.Sprint(iid)
	for _, r := range []struct{ to, src, encap, via string }{
		{"10.1.0.1/32", "10.2.0.1", "ip", pairA4},
		{"fd00:1::1/128", "fd00:2::1", "ip", pairA4},
		{"10.3.0.1/32", "10.4.0.1", "ip6", pairA6},
		{"fd00:3::1/128", "fd00:4::1", "ip6", pairA6},
	} {
		extra := []string{}
		if r.encap == "ip6" {
			extra = []string{"csum"}
		}
		args := append([]string{"route", "add", r.to, "encap", r.encap, "id", id, "dst", r.via, "hoplimit", "64"}, extra...)
		h.MustRun("ip", append(args, "dev", "vx", "src", r.src)...)
	}
}

// kernelEIDs are our EIDs in kernelPeer's eyes, and kernelMappings its EIDs in
// ours: all four combinations of families.
var kernelEIDs = []string{"10.1.0.1/32", "fd00:1::1/128", "10.3.0.1/32", "fd00:3::1/128"}

func kernelMappings(f mapcache.Format, iid uint32) []mapcache.Mapping {
	var ms []mapcache.Mapping
	for _, m := range []struct{ eid, rloc string }{
		{"10.2.0.1/32", pairB4}, {"fd00:2::1/128", pairB4}, {"10.4.0.1/32", pairB6}, {"fd00:4::1/128", pairB6},
	} {
		ms = append(ms, mapcache.Mapping{
			Key:   mapcache.Key{IID: iid, Prefix: prefix(m.eid)},
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(m.rloc), Format: f}, Priority: 1, Weight: 1}},
		})
	}
	return ms
}

// kernelFlows are pairs of our EID and the kernel's, for each combination.
var kernelFlows = []struct{ src, dst string }{
	{"10.1.0.1", "10.2.0.1"}, {"fd00:1::1", "fd00:2::1"}, {"10.3.0.1", "10.4.0.1"}, {"fd00:3::1", "fd00:4::1"},
}

// The kernel's VXLAN-GPE device is a peer, on LISP's port and on its own.
func TestKernelPeer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		port   string
		format mapcache.Format
		iid    uint32
	}{
		{"LISP-GPE", "4341", mapcache.FormatGPE, 0},
		{"LISP-GPE instance", "4341", mapcache.FormatGPE, 0xabcdef},
		{"VXLAN-GPE", "4790", mapcache.FormatVXLANGPE, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, netlab.LinkConfig{})
			kernelPeer(t, p.b, tt.port, int(tt.iid))
			x := newXTR(t, p.link.A, []string{pairA4, pairA6}, xtrConfig{
				eids: kernelEIDs, mappings: kernelMappings(tt.format, tt.iid), udp: UDPConfig{VXLANGPE: true},
				change: func(c *Config) { c.Overlays[0].InstanceID = tt.iid },
			})
			for _, f := range kernelFlows {
				p.a.MustRun("ping", "-c", "2", "-i", "0.01", "-W", "60", "-I", f.src, f.dst)
				p.b.MustRun("ping", "-c", "2", "-i", "0.01", "-W", "60", "-s", "1300", "-I", f.dst, f.src)
				transfer(t, p.a, p.b, f.src, f.dst, 3<<20)
				transfer(t, p.b, p.a, f.dst, f.src, 3<<20)
			}
			s := x.Stats()
			assert.Equal(t, [NumDropReasons]uint64{}, s.Drops)
			assert.NotZero(t, s.Segmented, "the kernel's TCP leaves segmentation to us")
			assert.NotZero(t, s.Finished, "and checksums")
		})
	}
}

// A sender with UDP_SEGMENT behind the kernel's device.
func TestKernelPeerUDPSegment(t *testing.T) {
	p := newPair(t, netlab.LinkConfig{})
	kernelPeer(t, p.b, "4341", 0)
	x := newXTR(t, p.link.A, []string{pairA4, pairA6}, xtrConfig{eids: kernelEIDs, mappings: kernelMappings(mapcache.FormatGPE, 0)})
	for _, f := range kernelFlows {
		to, err := p.a.ListenPacket("udp", net.JoinHostPort(f.src, "7000"))
		require.NoError(t, err)
		defer to.Close()
		from, err := p.b.ListenPacket("udp", net.JoinHostPort(f.dst, "7000"))
		require.NoError(t, err)
		defer from.Close()
		raw, err := from.(*net.UDPConn).SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 700))
		}))
		want := make([]byte, 10*700+1)
		for i := range want {
			want[i] = byte(i * 7)
		}
		_, err = from.WriteTo(want, to.LocalAddr())
		require.NoError(t, err)
		var got []byte
		buf := make([]byte, 65536)
		for len(got) < len(want) {
			require.NoError(t, to.SetReadDeadline(time.Now().Add(waitTime)))
			n, _, err := to.ReadFrom(buf)
			require.NoError(t, err)
			assert.Contains(t, []int{700, 1}, n)
			got = append(got, buf[:n]...)
		}
		assert.Equal(t, want, got)
	}
	assert.EqualValues(t, len(kernelFlows), x.Stats().Segmented)
}

// The kernel's device takes exactly the header that we send it, and drops what
// has any other bit.
func TestKernelPeerFlags(t *testing.T) {
	p := newPair(t, netlab.LinkConfig{})
	kernelPeer(t, p.b, "4341", 0)
	c, err := p.a.ListenPacket("udp", pairA4+":4341")
	require.NoError(t, err)
	defer c.Close()
	ours := dataHeaders(0)[mapcache.FormatGPE][0]
	var want [8]byte
	lisp.PutDataHeader(want[:], ours)
	send := func(header [8]byte, id uint16) {
		echo := packetSpec{src: "10.1.0.1", dst: "10.2.0.1", proto: layers.IPProtocolICMPv4, id: id}.build()
		_, err := c.WriteTo(append(header[:], echo...), &net.UDPAddr{IP: addr(pairB4).AsSlice(), Port: 4341})
		require.NoError(t, err)
	}
	const last = 1000
	for bit := range 64 {
		h := want
		h[bit/8] ^= 0x80 >> (bit % 8)
		send(h, uint16(bit))
	}
	send(want, last)
	var answered []int
	for buf := make([]byte, 2000); len(answered) == 0 || answered[len(answered)-1] != last; {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(waitTime)))
		n, _, err := c.ReadFrom(buf)
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, 8+28)
		assert.Equal(t, want[:], buf[:8], "and it sends the same")
		answered = append(answered, int(binary.BigEndian.Uint16(buf[8+20+6:])))
	}
	// Only the Instance ID may differ.
	var accepted []int
	for bit := 32; bit < 56; bit++ {
		accepted = append(accepted, bit)
	}
	assert.Equal(t, append(accepted, last), answered)
}

// transfer sends n random octets by TCP, and fails if others arrive.
func transfer(t testing.TB, from, to *netlab.Host, src, dst string, n int64) {
	t.Helper()
	l, err := to.Listen("tcp", net.JoinHostPort(dst, "0"))
	require.NoError(t, err)
	defer l.Close()
	sum := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			sum <- err.Error()
			return
		}
		defer c.Close()
		h := sha256.New()
		got, err := io.Copy(h, c)
		sum <- fmt.Sprintf("%d %v %x", got, err, h.Sum(nil))
	}()
	var c net.Conn
	require.NoError(t, from.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: addr(src).AsSlice()}, Timeout: waitTime}
		c, err = d.Dial("tcp", l.Addr().String())
		return err
	}))
	h := sha256.New()
	_, err = io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8([32]byte{1}), n)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Equal(t, fmt.Sprintf("%d <nil> %x", n, h.Sum(nil)), <-sum)
}
