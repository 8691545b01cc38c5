package encap

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// skip skips a test for what the system lacks, but not in CI, which has it all.
func skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(netlab.EnvRequire) == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// freePort returns a UDP port that nobody uses at an address.
func freePort(t testing.TB, a netip.Addr) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		skip(t, "no loopback address %v here: %v", a, err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// udpPair is a sender and a receiver over the loopback interface.
type udpPair struct {
	path     Path
	receiver Receiver
	remote   netip.AddrPort
	batch    []Incoming
}

func newUDPPair(t testing.TB, from, to netip.Addr, send, receive UDPConfig) *udpPair {
	t.Helper()
	receive.Listen = []netip.Addr{to}
	receive.Port = freePort(t, to)
	r, err := NewUDP(receive)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	send.Listen = []netip.Addr{from}
	send.Port = freePort(t, from)
	s, err := NewUDP(send)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	path, err := s.Open(mapcache.Local{Addr: from, Up: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, path.Close()) })
	require.Len(t, r.Receivers(), 1)
	u := r.(*udpUnderlay)
	require.NoError(t, u.receivers[0].conn.SetReadDeadline(time.Now().Add(waitTime)))
	rcv := r.Receivers()[0]
	return &udpPair{path, rcv, netip.AddrPortFrom(to, receive.Port), make([]Incoming, rcv.BatchSize())}
}

// receive returns n datagrams, apart from each other, and how many arrived as
// one at most.
func (u *udpPair) receive(t testing.TB, n int) (all []Incoming, together int) {
	t.Helper()
	for len(all) < n {
		got, err := u.receiver.Receive(u.batch)
		require.NoError(t, err)
		for _, in := range u.batch[:got] {
			k := 0
			for rest := in.Bytes; len(rest) > 0; k++ {
				size := len(rest)
				if in.Segment > 0 {
					size = min(size, in.Segment)
				}
				one := in
				one.Bytes, rest = clone(rest[:size]), rest[size:]
				all = append(all, one)
			}
			together = max(together, k)
		}
	}
	return all, together
}

func datagramsOf(remote netip.AddrPort, hash uint32, ttl, tos uint8, sizes ...int) []Outgoing {
	var out []Outgoing
	for i, n := range sizes {
		out = append(out, Outgoing{Bytes: bytes.Repeat([]byte{byte(i + 1)}, n), Remote: remote, Hash: hash, TTL: ttl, TOS: tos})
	}
	return out
}

func TestUDPLoopback(t *testing.T) {
	families := []struct {
		name     string
		from, to netip.Addr
	}{
		{"IPv4", addr("127.0.0.2"), addr("127.0.0.3")},
		{"IPv6", addr("::1"), addr("::1")},
	}
	policies := []struct {
		name          string
		send, receive UDPConfig
		offload       bool
	}{
		{"offload", UDPConfig{}, UDPConfig{}, true},
		{"segmented on arrival", UDPConfig{}, UDPConfig{NoOffload: true}, false},
		{"no offload", UDPConfig{NoOffload: true, Checksum: ChecksumComputed}, UDPConfig{}, false},
		// A zero UDP checksum is accepted, over IPv6 too: RFC 9300-5.3-3. And
		// can be sent: RFC 9300-5.3-2.
		{"zero checksum", UDPConfig{Checksum: ChecksumZero}, UDPConfig{}, false},
		{"zero checksum for want of offload", UDPConfig{NoOffload: true}, UDPConfig{NoOffload: true}, false},
	}
	for _, fam := range families {
		for _, pol := range policies {
			t.Run(fam.name+" "+pol.name, func(t *testing.T) {
				u := newUDPPair(t, fam.from, fam.to, pol.send, pol.receive)
				sizes := []int{500, 500, 500, 500, 120, 500, 500, 700}
				out := datagramsOf(u.remote, 7, 42, 0xb9, sizes...)
				// A batch mixes flows, and header fields within a flow.
				out = append(out, datagramsOf(u.remote, 7, 41, 0xb9, 100, 100)...)
				out = append(out, datagramsOf(u.remote, 7, 41, 0, 100)...)
				out = append(out, datagramsOf(u.remote, 0x80000000, 255, 3, 1, 65000)...)
				require.True(t, u.path.Send(out))

				got, together := u.receive(t, len(out))
				require.Len(t, got, len(out))
				ports := map[uint16]bool{}
				for i, in := range got {
					assert.Equal(t, out[i].Bytes, in.Bytes, i)
					assert.Equal(t, out[i].TTL, in.TTL, i) // RFC 9300-5.3-14
					assert.True(t, in.HasTOS, i)
					assert.Equal(t, out[i].TOS, in.TOS, i) // RFC 9300-5.3-15
					assert.Equal(t, fam.to, in.Local, i)
					assert.Equal(t, fam.from, in.Remote.Addr(), i)
					assert.NotZero(t, in.IfIndex)
					ports[in.Remote.Port()] = true
					if out[i].Hash == 7 {
						assert.Equal(t, got[0].Remote, in.Remote, "one flow, one source port") // RFC 9300-12-3, 9300-12-4
					}
				}
				assert.Len(t, ports, 2)
				if pol.offload {
					assert.Equal(t, 5, together, "runs of one size are segmented and merged by the kernel")
				}
			})
		}
	}
}

func TestUDPSegmentLimits(t *testing.T) {
	u := newUDPPair(t, addr("127.0.0.2"), addr("127.0.0.3"), UDPConfig{}, UDPConfig{})
	for _, tt := range []struct{ size, count int }{
		{1472, 128}, {64, 300}, {9000, 20}, {40000, 3},
	} {
		sizes := make([]int, tt.count)
		for i := range sizes {
			sizes[i] = tt.size
		}
		out := datagramsOf(u.remote, 1, 64, 0, sizes...)
		for at := 0; at < len(out); at += 32 { // what a small socket buffer takes
			part := out[at:min(at+32, len(out))]
			require.True(t, u.path.Send(part), "%d octets", tt.size)
			got, _ := u.receive(t, len(part))
			require.Len(t, got, len(part))
			for i := range got {
				require.Equal(t, part[i].Bytes, got[i].Bytes)
			}
		}
	}
}

func TestUDPErrors(t *testing.T) {
	from, to := addr("127.0.0.2"), addr("127.0.0.3")
	u := newUDPPair(t, from, to, UDPConfig{}, UDPConfig{})

	// One packet that can't be sent costs only itself.
	out := datagramsOf(u.remote, 1, 64, 0, 100, 100, 100)
	out[1].Bytes = make([]byte, 65600)
	assert.False(t, u.path.Send(out))
	assert.NoError(t, out[0].Err)
	assert.ErrorIs(t, out[1].Err, ErrTooBig)
	assert.NoError(t, out[2].Err)
	got, _ := u.receive(t, 2)
	assert.Len(t, got, 2)

	// Nor does an error in a run that is sent as one.
	out = datagramsOf(u.remote, 1, 0, 0, 100, 100) // TTL 0 is EINVAL
	assert.False(t, u.path.Send(out))
	assert.ErrorIs(t, out[0].Err, unix.EINVAL)
	assert.ErrorIs(t, out[1].Err, unix.EINVAL)

	require.NoError(t, u.path.Close())
	out = datagramsOf(u.remote, 1, 64, 0, 100)
	assert.False(t, u.path.Send(out))
	assert.ErrorIs(t, out[0].Err, net.ErrClosed)

	_, err := NewUDP(UDPConfig{Listen: []netip.Addr{to}, Port: u.remote.Port()})
	assert.ErrorIs(t, err, unix.EADDRINUSE)
	assert.ErrorContains(t, err, "is taken")

	for _, l := range []mapcache.Local{{Addr: addr("192.0.2.77")}, {Addr: from, IfIndex: 1 << 30}} {
		_, err := (&udpUnderlay{cfg: UDPConfig{SourcePorts: 1}}).Open(l)
		assert.Error(t, err)
	}
}

// A message that the kernel refuses to segment is sent packet by packet, and
// segmentation is not tried again.
func TestUDPSegmentFallback(t *testing.T) {
	u := newUDPPair(t, addr("127.0.0.2"), addr("127.0.0.3"), UDPConfig{}, UDPConfig{})
	p := u.path.(*udpPath)
	if !p.segment {
		skip(t, "this kernel has no UDP_SEGMENT")
	}
	// A zero checksum and UDP_SEGMENT exclude each other: EINVAL.
	for _, s := range p.computed.flows {
		require.NoError(t, s.raw.Control(func(fd uintptr) {
			require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1))
		}))
	}
	out := datagramsOf(u.remote, 1, 64, 0, 100, 100, 50)
	require.True(t, u.path.Send(out))
	assert.False(t, p.segment)
	got, _ := u.receive(t, 3)
	require.Len(t, got, 3)
	for i := range got {
		assert.Equal(t, out[i].Bytes, got[i].Bytes)
	}
}

func TestUDPPathMTU(t *testing.T) {
	u := newUDPPair(t, addr("127.0.0.2"), addr("127.0.0.3"), UDPConfig{}, UDPConfig{})
	lo, err := net.InterfaceByName("lo")
	require.NoError(t, err)
	assert.Equal(t, min(lo.MTU, 65535), u.path.PathMTU(u.remote.Addr()))
	assert.Zero(t, u.path.MTU(), "127.0.0.2 is not an address of an interface, though it works")
	p, err := (&udpUnderlay{cfg: UDPConfig{SourcePorts: 1}}).Open(mapcache.Local{Addr: addr("127.0.0.1"), Up: true})
	require.NoError(t, err)
	defer p.Close()
	assert.Equal(t, lo.MTU, p.MTU())
}

func TestUDPWriteDatagram(t *testing.T) {
	a, b := addr("127.0.0.2"), addr("127.0.0.3")
	ua, err := NewUDP(UDPConfig{Listen: []netip.Addr{a}, Port: freePort(t, a)})
	require.NoError(t, err)
	defer ua.Close()
	u := newUDPPair(t, a, b, UDPConfig{}, UDPConfig{})
	port := ua.(*udpUnderlay).receivers[0].conn.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, local := range []netip.Addr{{}, a} {
		require.NoError(t, ua.WriteDatagram(lisp.Datagram{Local: netip.AddrPortFrom(local, dataPort), Remote: u.remote, Bytes: []byte("info")}))
		got, _ := u.receive(t, 1)
		require.Len(t, got, 1)
		assert.Equal(t, "info", string(got[0].Bytes))
		assert.Equal(t, port, got[0].Remote, "control leaves from the data port")
	}
	err = ua.WriteDatagram(lisp.Datagram{Remote: netip.MustParseAddrPort("[::1]:4342"), Bytes: []byte("info")})
	assert.ErrorIs(t, err, unix.EADDRNOTAVAIL)
}

func TestUDPAllocations(t *testing.T) {
	for _, cfg := range []UDPConfig{{}, {NoOffload: true}} {
		u := newUDPPair(t, addr("127.0.0.2"), addr("127.0.0.3"), cfg, cfg)
		out := datagramsOf(u.remote, 1, 64, 0, 100, 100, 100, 50)
		allocs := testing.AllocsPerRun(100, func() {
			if !u.path.Send(out) {
				t.Fatal(out[0].Err)
			}
			for n := 0; n < 350; {
				k, err := u.receiver.Receive(u.batch)
				if err != nil {
					t.Fatal(err)
				}
				for _, in := range u.batch[:k] {
					n += len(in.Bytes)
				}
			}
		})
		assert.Zero(t, allocs)
	}
}

func TestUDPClose(t *testing.T) {
	u, err := NewUDP(UDPConfig{Listen: []netip.Addr{addr("127.0.0.3")}, Port: freePort(t, addr("127.0.0.3"))})
	require.NoError(t, err)
	done := make(chan error)
	go func() {
		_, err := u.Receivers()[0].Receive(make([]Incoming, 4))
		done <- err
	}()
	require.NoError(t, u.Close())
	assert.ErrorIs(t, <-done, net.ErrClosed)
	assert.NoError(t, u.Close())
}
