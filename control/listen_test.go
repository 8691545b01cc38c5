package control

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// listen opens sockets on ports of the system's choice.
func listen(t *testing.T, addrs ...string) *UDPConn {
	t.Helper()
	var cfg ListenConfig
	for _, a := range addrs {
		cfg.Addrs = append(cfg.Addrs, netip.AddrPortFrom(netip.MustParseAddr(a), 0))
	}
	c, err := Listen(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func haveIPv6(t *testing.T) {
	t.Helper()
	pc, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		require.NotEqual(t, "1", os.Getenv("XTRKIT_REQUIRE_PRIVILEGED"), "no IPv6 here: %v", err) // CI runs this
		t.Skipf("no IPv6 here: %v", err)
	}
	_ = pc.Close()
}

// receive reads n datagrams.
func receive(t *testing.T, r Reader, n int) (out []lisp.Datagram) {
	t.Helper()
	for len(out) < n {
		ds := make([]lisp.Datagram, 4)
		for i := range ds {
			ds[i].Bytes = make([]byte, 2000)
		}
		k, err := r.ReadDatagrams(ds)
		require.NoError(t, err)
		require.Positive(t, k)
		out = append(out, ds[:k]...)
	}
	return out
}

// TestListen: datagrams over real sockets, which tell the address that they were
// sent to and take the address they are to leave from.
func TestListen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems have no second loopback address by default")
	}
	a, b := listen(t, "0.0.0.0"), listen(t, "127.0.0.1")
	port := a.LocalAddrs()[0].Port()
	second := netip.MustParseAddr("127.0.0.2")
	var ds []lisp.Datagram
	for i := range 40 {
		ds = append(ds, lisp.Datagram{
			Local: b.LocalAddrs()[0], Remote: netip.AddrPortFrom(second, port), Bytes: []byte{byte(i), 1, 2, 3},
		})
	}
	n, err := b.WriteDatagrams(ds)
	require.NoError(t, err)
	require.Equal(t, len(ds), n)
	got := receive(t, a.Readers()[0], len(ds))
	for i, d := range got {
		assert.Equal(t, netip.AddrPortFrom(second, port), d.Local)
		assert.Equal(t, b.LocalAddrs()[0], d.Remote)
		assert.NotZero(t, d.IfIndex)
		assert.Equal(t, []byte{byte(i), 1, 2, 3}, d.Bytes)
	}
	// The answer leaves from the address that was asked.
	n, err = a.WriteDatagrams([]lisp.Datagram{
		{Local: got[0].Local, Remote: got[0].Remote, Bytes: []byte("with")},
		{Local: got[0].Local, Remote: got[0].Remote, IfIndex: got[0].IfIndex, Bytes: []byte("and interface")},
		{Local: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), port), Remote: got[0].Remote, Bytes: []byte("not ours")},
		{Remote: got[0].Remote, Bytes: []byte("without")},
	})
	require.ErrorContains(t, err, "control: send to 127.0.0.1:")
	assert.Equal(t, 3, n, "a datagram that cannot be sent costs only itself")
	back := receive(t, b.Readers()[0], 3)
	assert.Equal(t, netip.AddrPortFrom(second, port), back[0].Remote)
	assert.Equal(t, netip.AddrPortFrom(second, port), back[1].Remote)
	assert.Equal(t, "and interface", string(back[1].Bytes))
	assert.Equal(t, "without", string(back[2].Bytes))
}

func TestListenIPv6(t *testing.T) {
	haveIPv6(t)
	a, b := listen(t, "::", "0.0.0.0"), listen(t, "::1")
	require.Len(t, a.Readers(), 2)
	n, err := b.WriteDatagrams([]lisp.Datagram{
		{Local: b.LocalAddrs()[0], Remote: netip.AddrPortFrom(netip.IPv6Loopback(), a.LocalAddrs()[0].Port()), Bytes: []byte("x")},
		{Remote: netip.MustParseAddrPort("127.0.0.1:9"), Bytes: []byte("no socket for it")},
	})
	require.Error(t, err)
	assert.Equal(t, 1, n)
	d := receive(t, a.Readers()[0], 1)[0]
	assert.Equal(t, netip.IPv6Loopback(), d.Local.Addr())
	assert.Equal(t, b.LocalAddrs()[0], d.Remote)
	n, err = a.WriteDatagrams([]lisp.Datagram{{Local: d.Local, Remote: d.Remote, IfIndex: d.IfIndex, Bytes: []byte("y")}})
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	assert.Equal(t, []byte("y"), receive(t, b.Readers()[0], 1)[0].Bytes)
}

func TestListenErrors(t *testing.T) {
	a := listen(t, "127.0.0.1")
	_, err := Listen(t.Context(), ListenConfig{Addrs: a.LocalAddrs()})
	require.ErrorContains(t, err, "is in use, perhaps by another LISP program")
	_, err = Listen(t.Context(), ListenConfig{Addrs: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.254:0")}})
	require.ErrorContains(t, err, "control: listen on 203.0.113.254")
	require.NoError(t, a.Close())
	_, err = a.Readers()[0].ReadDatagrams([]lisp.Datagram{{Bytes: make([]byte, 10)}})
	require.ErrorIs(t, err, net.ErrClosed)
}

// TestListenEverywhere: the default is both families, on a port that is free.
func TestListenEverywhere(t *testing.T) {
	var port uint16
	var c *UDPConn
	for tries := 0; c == nil; tries++ {
		free := listen(t, "0.0.0.0")
		port = free.LocalAddrs()[0].Port()
		require.NoError(t, free.Close())
		var err error
		if c, err = Listen(t.Context(), ListenConfig{Port: port}); err != nil {
			require.Less(t, tries, 10, "somebody always takes the port: %v", err)
		}
	}
	defer func() { require.NoError(t, c.Close()) }()
	for _, a := range c.LocalAddrs() {
		assert.Equal(t, port, a.Port())
		assert.True(t, a.Addr().IsUnspecified())
	}
}

func TestNewConnSimple(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	wrapped := struct{ net.PacketConn }{pc} // nothing is known of it
	c := NewConn(wrapped)
	peer := listen(t, "127.0.0.1")
	n, err := peer.WriteDatagrams([]lisp.Datagram{{Remote: addrPort(pc.LocalAddr()), Bytes: []byte("x")}})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	d := receive(t, c.Readers()[0], 1)[0]
	assert.Equal(t, addrPort(pc.LocalAddr()), d.Local)
	assert.Equal(t, peer.LocalAddrs()[0], d.Remote)
	n, err = c.WriteDatagrams([]lisp.Datagram{{Local: d.Local, Remote: d.Remote, Bytes: []byte("y")}})
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	assert.Equal(t, []byte("y"), receive(t, peer.Readers()[0], 1)[0].Bytes)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	n, err = c.WriteDatagrams([]lisp.Datagram{d, d})
	require.ErrorIs(t, err, net.ErrClosed)
	assert.Zero(t, n)
}

// TestRunnerLoopback: an xTR registers with a scripted Map-Server and answers an
// RLOC-probe, over real sockets.
func TestRunnerLoopback(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	ms, conn := listen(t, "127.0.0.1"), listen(t, "127.0.0.1")
	registered := make(chan Registered, 1)
	e, err := New(Config{
		Port:       conn.LocalAddrs()[0].Port(),
		Database:   []DatabaseMapping{{Key: hostKey(eid4)}},
		MapServers: []MapServer{{Addr: ms.LocalAddrs()[0], Key: testKey}},
	})
	require.NoError(t, err)
	r, err := NewRunner(RunnerConfig{Conn: conn, Engine: e, OnEvent: func(ev Event) {
		if ev, ok := ev.(Registered); ok {
			registered <- ev
		}
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { assert.NoError(t, r.Run(ctx)) })
	r.SetLocals(time.Now(), []mapcache.Local{{Addr: local, Priority: 1, Weight: 1, Up: true}})

	// The Map-Server: verify, acknowledge; the withdrawal too.
	notify := func() *lisp.MapRegister {
		d := receive(t, ms.Readers()[0], 1)[0]
		require.NoError(t, lisp.Verify(d.Bytes, testKey))
		var m lisp.MapRegister
		require.NoError(t, m.DecodeFromBytes(d.Bytes))
		n := lisp.MapNotify{Nonce: m.Nonce, Records: m.Records}
		b, err := n.AppendSigned(nil, testKey)
		require.NoError(t, err)
		_, err = ms.WriteDatagrams([]lisp.Datagram{{Local: d.Local, Remote: d.Remote, Bytes: b}})
		require.NoError(t, err)
		return &m
	}
	m := notify()
	require.Len(t, m.Records, 1)
	ev := <-registered
	assert.Equal(t, []mapcache.Key{hostKey(eid4)}, ev.EIDs)

	probe := mapRequest("192.0.2.1/32", local)
	probe.Probe = true
	b, err := probe.MarshalBinary()
	require.NoError(t, err)
	_, err = ms.WriteDatagrams([]lisp.Datagram{{Remote: conn.LocalAddrs()[0], Bytes: b}})
	require.NoError(t, err)
	d := receive(t, ms.Readers()[0], 1)[0]
	var reply lisp.MapReply
	require.NoError(t, reply.DecodeFromBytes(d.Bytes))
	assert.True(t, reply.Probe)
	probed, ok := probedLocator(reply.Records)
	assert.True(t, ok)
	assert.Equal(t, local, probed)

	cancel()
	m = notify()
	assert.Zero(t, m.Records[0].TTL)
	wg.Wait()
	require.NoError(t, r.Close())
}
