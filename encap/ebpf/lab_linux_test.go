package ebpf

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

func TestMain(m *testing.M) {
	if os.Getenv(envVictim) != "" {
		victim() // does not return
	}
	netlab.Main(m)
}

// waitTime is when a test gives up what happens within milliseconds.
const waitTime = 3 * time.Minute

// requireBPF skips a test where the kernel lets nobody use BPF: not as root of the
// machine, when all has to be tested.
func requireBPF(t testing.TB) {
	t.Helper()
	netlab.Require(t, netlab.NetworkNamespaces, netlab.TUN)
	err := Probe()
	if err == nil {
		return
	}
	if os.Getenv(netlab.EnvRequire) == "1" && !inUserNamespace() {
		t.Fatalf("%s=1, and %v", netlab.EnvRequire, err)
	}
	t.Skipf("needs BPF: %v", err)
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// backend is who forwards packets.
type backend string

const (
	inKernel backend = "eBPF"
	inUser   backend = "user space"
)

var backends = []backend{inKernel, inUser}

// nodeConfig describes a node.
type nodeConfig struct {
	backend  backend
	iid      uint32
	eids     []string
	mappings []mapcache.Mapping
	locals   []mapcache.Local
	udp      encap.UDPConfig
	tun      tun.Config
	cache    mapcache.Config
	metered  bool
	encap    func(*encap.Config)
	ebpf     func(*Config)
}

// node is an xTR on a host. kernel is nil in user space.
type node struct {
	host   *netlab.Host
	cache  *mapcache.Cache
	tun    *tun.Interface
	fwd    *encap.Forwarder
	kernel *Dataplane
	plane  interface {
		Apply([]mapcache.Change) error
		SetLocals([]mapcache.Local) error
		Usage(func(mapcache.Usage))
		PendingMisses([]mapcache.Key) []mapcache.Key
	}
}

func newNode(t testing.TB, h *netlab.Host, cfg nodeConfig) *node {
	t.Helper()
	n := &node{host: h, cache: mapcache.New(cfg.cache)}
	require.NoError(t, h.Do(func() error {
		o := encap.Overlay{InstanceID: cfg.iid}
		for _, e := range cfg.eids {
			o.EIDs = append(o.EIDs, prefix(e).Masked())
			cfg.tun.EIDs = append(cfg.tun.EIDs, prefix(e))
		}
		var err error
		n.tun, err = tun.Create(cfg.tun)
		require.NoError(t, err)
		o.Device = n.tun
		u, err := encap.NewUDP(cfg.udp)
		require.NoError(t, err)
		native, err := encap.NewNative()
		require.NoError(t, err)
		icmp, err := encap.NewICMP()
		require.NoError(t, err)
		ec := encap.Config{Overlays: []encap.Overlay{o}, View: n.cache.View, Underlay: u, Native: native, ICMP: icmp, FlowSeed: 4341}
		if cfg.metered {
			ec.Meter = n.cache.NewMeter
		}
		if cfg.encap != nil {
			cfg.encap(&ec)
		}
		n.fwd, err = encap.NewForwarder(ec)
		require.NoError(t, err)
		n.plane = n.fwd
		if cfg.backend == inKernel {
			c := Config{Forwarder: n.fwd, Encap: ec, UDP: cfg.udp, Cache: n.cache}
			if cfg.ebpf != nil {
				cfg.ebpf(&c)
			}
			n.kernel, err = New(c)
			require.NoError(t, err)
			n.plane = n.kernel
		}
		var sources []netip.Addr
		for _, l := range cfg.locals {
			sources = append(sources, l.Addr)
		}
		require.NoError(t, n.tun.SetLocals(sources))
		return n.plane.SetLocals(cfg.locals)
	}))
	forward(t, n.fwd)
	t.Cleanup(func() {
		if n.kernel != nil {
			require.NoError(t, h.Do(n.kernel.Close))
		}
	})
	n.insert(t, cfg.mappings...)
	return n
}

// forward runs a Forwarder until the test ends.
func forward(t testing.TB, f *encap.Forwarder) {
	t.Helper()
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		close(begun)
		ended <- f.Run(context.Background())
	}()
	<-begun
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		if err := <-ended; err != nil { // a test that was shorter than it takes a goroutine to begin
			require.ErrorContains(t, err, "after Close")
		}
	})
}

// insert stores mappings that stay, and publishes.
func (n *node) insert(t testing.TB, ms ...mapcache.Mapping) {
	t.Helper()
	for _, m := range ms {
		m.TTL, m.Origin = mapcache.TTLForever, mapcache.OriginStatic
		require.NoError(t, n.cache.Insert(time.Now(), m))
	}
	n.publish(t)
}

func (n *node) publish(t testing.TB) {
	t.Helper()
	n.cache.Publish()
	require.NoError(t, n.plane.Apply(n.cache.Changes()))
}

// stats are those of either backend.
func (n *node) stats() Stats {
	if n.kernel != nil {
		return n.kernel.Stats()
	}
	return Stats{Stats: n.fwd.Stats()}
}

// mapTo is a mapping to one locator.
func mapTo(iid uint32, eid, rloc string, f mapcache.Format) mapcache.Mapping {
	return mapcache.Mapping{
		Key: mapcache.MakeKey(iid, prefix(eid)),
		RLOCs: []mapcache.RLOC{{
			Locator: mapcache.Locator{Addr: addr(rloc), Format: f}, Priority: 1, Weight: 1,
		}},
	}
}

// flow is a pair of EIDs and the locators that packets between them go by.
type flow struct{ name, a, b, rlocA, rlocB string }

var families = []flow{
	{"IPv4 in IPv4", "10.1.0.1", "10.2.0.1", "198.51.100.1", "198.51.100.2"},
	{"IPv6 in IPv4", "fd00:1::1", "fd00:2::1", "198.51.100.1", "198.51.100.2"},
	{"IPv4 in IPv6", "10.3.0.1", "10.4.0.1", "2001:db8:a::1", "2001:db8:a::2"},
	{"IPv6 in IPv6", "fd00:3::1", "fd00:4::1", "2001:db8:a::1", "2001:db8:a::2"},
}

func host(s string) string {
	a := addr(s)
	return netip.PrefixFrom(a, a.BitLen()).String()
}

// pair is two hosts on one wire, each with a node.
type pair struct {
	lab   *netlab.Lab
	link  *netlab.Link
	nodes [2]*node
}

// newPair makes the nodes of families. change may adapt the configuration of each.
func newPair(t *testing.T, link netlab.LinkConfig, kinds [2]backend, iid uint32, f mapcache.Format, change func(int, *nodeConfig)) *pair {
	t.Helper()
	requireBPF(t)
	p := &pair{lab: netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)}
	a, b := p.lab.Host("a"), p.lab.Host("b")
	link.A, link.B = netlab.At("198.51.100.1/24", "2001:db8:a::1/64"), netlab.At("198.51.100.2/24", "2001:db8:a::2/64")
	p.link = p.lab.Link(a, b, link)
	for i, end := range []*netlab.Interface{p.link.A, p.link.B} {
		if kinds[i] == "" {
			continue
		}
		cfg := nodeConfig{backend: kinds[i], iid: iid}
		for _, v := range families {
			own, other, rloc := v.a, v.b, v.rlocB
			if i == 1 {
				own, other, rloc = v.b, v.a, v.rlocA
			}
			cfg.eids = append(cfg.eids, host(own))
			cfg.mappings = append(cfg.mappings, mapTo(iid, host(other), rloc, f))
		}
		for _, s := range []string{"198.51.100.%d", "2001:db8:a::%d"} {
			cfg.locals = append(cfg.locals, mapcache.Local{IfIndex: end.Index, Addr: addr(fmt.Sprintf(s, i+1)), Priority: 1, Weight: 1, Up: true})
		}
		if f != mapcache.FormatLISP {
			cfg.udp.ZeroChecksum = []netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0")}
			cfg.udp.VXLANGPE = f == mapcache.FormatVXLANGPE
		}
		if change != nil {
			change(i, &cfg)
		}
		p.nodes[i] = newNode(t, end.Host, cfg)
	}
	return p
}

// transfer sends octets by TCP and checks that they arrive as they were.
func transfer(t *testing.T, from, to *netlab.Host, src, dst string, octets int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	ln, err := to.Listen("tcp", net.JoinHostPort(dst, "0"))
	require.NoError(t, err)
	defer ln.Close()
	got := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		if c, err := ln.Accept(); err == nil {
			_, _ = io.Copy(h, c)
			_ = c.Close()
		}
		got <- [32]byte(h.Sum(nil))
	}()
	c, err := from.Dial(ctx, "tcp", ln.Addr().String())
	require.NoError(t, err, "from %s", src)
	h := sha256.New()
	require.NoError(t, c.SetDeadline(time.Now().Add(waitTime)))
	_, err = io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8([32]byte{1}), int64(octets))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	select {
	case sum := <-got:
		require.Equal(t, [32]byte(h.Sum(nil)), sum)
	case <-ctx.Done():
		t.Fatal("the transfer does not end")
	}
}

// awaitDelivery waits until a host delivers to an address of its own. It has an IPv6
// address a moment before: the kernel makes the route in a thread of its own.
func awaitDelivery(t *testing.T, h *netlab.Host, to string) {
	t.Helper()
	family, bits := netlink.FAMILY_V4, 32
	if addr(to).Is6() {
		family, bits = netlink.FAMILY_V6, 128
	}
	route := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: &net.IPNet{IP: net.ParseIP(to), Mask: net.CIDRMask(bits, bits)}}
	require.NoError(t, netlab.Eventually(t.Context(), "the local route of "+to, func() bool {
		found, err := h.Netlink().RouteListFiltered(family, route, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		return err == nil && len(found) > 0
	}))
}

// exchange sends a UDP datagram and waits for it at the other end.
func exchange(t *testing.T, from, to *netlab.Host, src, dst string, octets int) {
	t.Helper()
	awaitDelivery(t, to, dst)
	in, err := to.ListenPacket("udp", net.JoinHostPort(dst, "0"))
	require.NoError(t, err)
	defer in.Close()
	out, err := from.ListenPacket("udp", net.JoinHostPort(src, "0"))
	require.NoError(t, err)
	defer out.Close()
	b := make([]byte, octets)
	for i := range b {
		b[i] = byte(i * octets)
	}
	_, err = out.WriteTo(b, in.LocalAddr())
	require.NoError(t, err)
	require.NoError(t, in.SetReadDeadline(time.Now().Add(waitTime)))
	buf := make([]byte, 65536)
	n, _, err := in.ReadFrom(buf)
	require.NoError(t, err, "%d octets", octets)
	require.Equal(t, b, buf[:n])
}
