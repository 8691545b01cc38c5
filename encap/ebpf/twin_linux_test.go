package ebpf

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// twin is the programs in the kernel, run by BPF_PROG_TEST_RUN, and beside them a
// Forwarder in memory with the same configuration, which says what is right.
type twin struct {
	*node
	user  *encap.Forwarder
	dev   *memDevice
	under *memUnderlay
	out   []byte
}

// memDevice hands packets to a Forwarder and keeps what it writes.
type memDevice struct {
	in     chan []byte
	mu     sync.Mutex
	out    [][]byte
	closed chan struct{}
	once   sync.Once
}

func (*memDevice) Name() string   { return "memory" }
func (*memDevice) MTU() int       { return 65535 }
func (*memDevice) BatchSize() int { return 1 }
func (d *memDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case b := <-d.in:
		sizes[0] = copy(bufs[0][offset:], b)
		return 1, nil
	case <-d.closed:
		return 0, net.ErrClosed
	}
}

func (d *memDevice) Write(bufs [][]byte, offset int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range bufs {
		d.out = append(d.out, append([]byte(nil), b[offset:]...))
	}
	return len(bufs), nil
}

func (d *memDevice) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// take returns what was written since the last call.
func (d *memDevice) take() [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.out
	d.out = nil
	return out
}

// memUnderlay hands datagrams to a Forwarder and keeps what it sends.
type memUnderlay struct {
	in     chan encap.Incoming
	mu     sync.Mutex
	out    []sent
	closed chan struct{}
	once   sync.Once
}

type sent struct {
	encap.Outgoing
	from netip.Addr
}

type memPath struct {
	u *memUnderlay
	l mapcache.Local
}

func (u *memUnderlay) Open(l mapcache.Local) (encap.Path, error) { return &memPath{u, l}, nil }
func (u *memUnderlay) Receivers() []encap.Receiver               { return []encap.Receiver{u} }
func (u *memUnderlay) WriteDatagram(lisp.Datagram) error         { return nil }
func (u *memUnderlay) Close() error {
	u.once.Do(func() { close(u.closed) })
	return nil
}
func (*memUnderlay) BatchSize() int { return 1 }
func (u *memUnderlay) Receive(batch []encap.Incoming) (int, error) {
	select {
	case batch[0] = <-u.in:
		return 1, nil
	case <-u.closed:
		return 0, net.ErrClosed
	}
}

func (u *memUnderlay) take() []sent {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.out
	u.out = nil
	return out
}

func (p *memPath) Send(out []encap.Outgoing) bool {
	p.u.mu.Lock()
	defer p.u.mu.Unlock()
	for _, o := range out {
		o.Bytes = append(append([]byte(nil), o.Bytes...), o.Payload...)
		p.u.out = append(p.u.out, sent{o, p.l.Addr})
	}
	return true
}
func (p *memPath) MTU() int               { return 1500 }
func (p *memPath) PathMTU(netip.Addr) int { return 0 }
func (p *memPath) Close() error           { return nil }

// newTwin makes both. What is a LAN to the programs is the loopback interface, from
// which test runs seem to come.
func newTwin(t testing.TB, cfg nodeConfig, change func(*encap.Config)) *twin {
	t.Helper()
	requireBPF(t)
	lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)
	a, b := lab.Host("a"), lab.Host("b")
	link := lab.Link(a, b, netlab.LinkConfig{
		A: netlab.At("198.51.100.1/24", "198.51.100.11/24", "2001:db8:a::1/64", "2001:db8:a::11/64"),
		B: netlab.At("198.51.100.2/24", "2001:db8:a::2/64"),
	})
	for i := range cfg.locals {
		cfg.locals[i].IfIndex = link.A.Index
	}
	cfg.backend, cfg.encap = inKernel, change
	more := cfg.ebpf
	cfg.ebpf = func(c *Config) {
		c.LANs = []LAN{{IfIndex: 1, InstanceID: cfg.iid}}
		if more != nil {
			more(c)
		}
	}
	tw := &twin{
		node:  newNode(t, a, cfg),
		dev:   &memDevice{in: make(chan []byte), closed: make(chan struct{})},
		under: &memUnderlay{in: make(chan encap.Incoming), closed: make(chan struct{})},
		out:   make([]byte, 4096),
	}
	ec := encap.Config{
		Overlays: []encap.Overlay{tw.kernel.cfg.Encap.Overlays[0]}, View: tw.cache.View, Underlay: tw.under,
		FlowSeed: tw.kernel.cfg.Encap.FlowSeed, ICMPRate: -1, HoldTime: -1,
	}
	if change != nil {
		change(&ec)
	}
	ec.Overlays[0].Device = tw.dev
	var err error
	tw.user, err = encap.NewForwarder(ec)
	require.NoError(t, err)
	require.NoError(t, tw.user.SetLocals(cfg.locals))
	forward(t, tw.user)
	return tw
}

const redirected = 7 // TC_ACT_REDIRECT

// run runs a program on a frame, and returns its verdict and what became of the
// packet behind the Ethernet header.
func (tw *twin) run(t testing.TB, prog *ebpf.Program, frame []byte) (verdict int32, packet []byte) {
	t.Helper()
	o := ebpf.RunOptions{Data: frame, DataOut: tw.out}
	ret, err := prog.Run(&o)
	if errors.Is(err, unix.EINVAL) && len(frame) < 14+40 {
		return -1, nil // a test run can't have a packet without a whole IP header
	}
	require.NoError(t, err, "%x", frame)
	return int32(ret), o.DataOut[14:]
}

// ethernet puts a header in front of a packet.
func ethernet(packet []byte) []byte {
	b := make([]byte, 14, 14+len(packet))
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	if len(packet) > 0 && packet[0]>>4 == 6 {
		binary.BigEndian.PutUint16(b[12:], 0x86dd)
	}
	return append(b, packet...)
}

// handled counts the packets that a Forwarder is done with.
func handled(s *encap.Stats) uint64 {
	n := s.Encapsulated.Packets + s.Decapsulated.Packets + s.Native.Packets
	for _, d := range s.Drops {
		n += d
	}
	return n
}

// userEncap gives a packet to the Forwarder and returns what it sent.
func (tw *twin) userEncap(t testing.TB, packet []byte) []sent {
	t.Helper()
	before := tw.user.Stats()
	tw.dev.in <- packet
	tw.await(t, &before)
	return tw.under.take()
}

// await waits until the Forwarder is done with a packet.
func (tw *twin) await(t testing.TB, before *encap.Stats) {
	t.Helper()
	for deadline := time.Now().Add(waitTime); ; runtime.Gosched() {
		now := tw.user.Stats()
		if handled(&now) != handled(before) {
			return
		}
		require.True(t, time.Now().Before(deadline), "the Forwarder does nothing")
	}
}

// userDecap gives what came behind the UDP header to the Forwarder, and returns
// what it delivered, or why not.
func (tw *twin) userDecap(t testing.TB, in encap.Incoming) ([][]byte, encap.DropReason) {
	t.Helper()
	before := tw.user.Stats()
	tw.under.in <- in
	tw.await(t, &before)
	after := tw.user.Stats()
	for i := range after.Drops {
		if after.Drops[i] != before.Drops[i] {
			return tw.dev.take(), encap.DropReason(i)
		}
	}
	// It is counted before it is written.
	for deadline := time.Now().Add(waitTime); ; runtime.Gosched() {
		if out := tw.dev.take(); len(out) > 0 {
			return out, encap.DropNone
		}
		require.True(t, time.Now().Before(deadline), "nothing is delivered")
	}
}

// dropped returns the reason of the drop that the programs have counted since the
// counters were s.
func (tw *twin) dropped(s *Stats) encap.DropReason {
	now := tw.kernel.Stats()
	for i := range now.KernelDrops {
		if now.KernelDrops[i] != s.KernelDrops[i] {
			return encap.DropReason(i)
		}
	}
	return encap.DropNone
}

// spec describes a packet to be built.
type spec struct {
	src, dst  string
	tos, ttl  uint8
	proto     layers.IPProtocol // default UDP
	sport     uint16
	dport     uint16
	payload   []byte
	options   []byte // of IPv4, a multiple of 4 octets
	flags     layers.IPv4Flag
	fragment  uint16 // offset in units of 8
	extension []byte // raw IPv6 extension header, whose first octet is set to the protocol
	extType   layers.IPProtocol
}

func (s spec) build() []byte {
	if s.ttl == 0 {
		s.ttl = 64
	}
	if s.proto == 0 {
		s.proto = layers.IPProtocolUDP
	}
	var l4 []byte
	switch s.proto {
	case layers.IPProtocolUDP:
		l4 = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s.sport), s.dport)
		l4 = append(binary.BigEndian.AppendUint16(l4, uint16(8+len(s.payload))), 0, 0)
	case layers.IPProtocolTCP:
		l4 = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s.sport), s.dport)
		l4 = append(l4, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0)
	}
	l4 = append(l4, s.payload...)
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	src, dst := addr(s.src), addr(s.dst)
	if src.Is4() {
		ip := layers.IPv4{
			Version: 4, TOS: s.tos, TTL: s.ttl, Protocol: s.proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
			Flags: s.flags, FragOffset: s.fragment, Id: 7,
		}
		if len(s.options) > 0 {
			ip.Options = []layers.IPv4Option{{OptionType: s.options[0], OptionLength: uint8(len(s.options)), OptionData: s.options[2:]}}
		}
		if err := gopacket.SerializeLayers(buf, opts, &ip, gopacket.Payload(l4)); err != nil {
			panic(err)
		}
		return append([]byte(nil), buf.Bytes()...)
	}
	next := s.proto
	if s.extension != nil {
		s.extension[0] = byte(s.proto)
		l4, next = append(append([]byte(nil), s.extension...), l4...), s.extType
	}
	ip := layers.IPv6{Version: 6, TrafficClass: s.tos, HopLimit: s.ttl, NextHeader: next, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	if err := gopacket.SerializeLayers(buf, opts, &ip, gopacket.Payload(l4)); err != nil {
		panic(err)
	}
	return append([]byte(nil), buf.Bytes()...)
}

// data is a data packet around an inner one.
func (s spec) data(header [8]byte, inner []byte) []byte {
	s.payload = append(append([]byte(nil), header[:]...), inner...)
	if s.dport == 0 {
		s.dport = 4341
	}
	s.sport = 50000
	return s.build()
}
