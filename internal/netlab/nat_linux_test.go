package netlab

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// natPair is a host behind a NAT, and one in front of it.
func natPair(t *testing.T, cfg NATConfig, features ...Feature) (a, nat, b *Host) {
	lab := Test(t, append(features, NAT)...)
	a, nat, b = lab.Host("a"), lab.Router("nat"), lab.Host("b")
	lab.Link(a, nat, LinkConfig{A: At("192.168.1.2/24"), B: At("192.168.1.1/24")})
	out := lab.Link(nat, b, LinkConfig{A: At("203.0.113.1/24"), B: At("203.0.113.2/24")})
	a.DefaultVia("192.168.1.1")
	nat.Masquerade(out.A, cfg)
	return a, nat, b
}

// TestFlushNAT: a binding ends in the middle of a conversation.
func TestFlushNAT(t *testing.T) {
	a, nat, b := natPair(t, NATConfig{RandomPorts: true}, ConntrackFlush)
	server, err := b.ListenPacket("udp", "203.0.113.2:0")
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	client, err := a.ListenPacket("udp", "192.168.1.2:4000")
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	buf := make([]byte, 10)
	out := func() netip.AddrPort {
		_, err := client.WriteTo([]byte("out"), server.LocalAddr())
		require.NoError(t, err)
		require.NoError(t, server.SetReadDeadline(time.Now().Add(awaitLimit)))
		_, from, err := server.ReadFrom(buf)
		require.NoError(t, err)
		return from.(*net.UDPAddr).AddrPort()
	}
	in := func(to netip.AddrPort, text string) {
		_, err := server.WriteTo([]byte(text), net.UDPAddrFromAddrPort(to))
		require.NoError(t, err)
	}
	read := func() string {
		require.NoError(t, client.SetReadDeadline(time.Now().Add(awaitLimit)))
		n, _, err := client.ReadFrom(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	first := out()
	in(first, "one")
	require.Equal(t, "one", read())
	nat.FlushNAT()
	in(first, "lost")
	second := out()
	assert.NotEqual(t, first, second, "a new binding")
	in(second, "two")
	assert.Equal(t, "two", read(), "and what came by the old one is lost")
}

// TestFullCone: anybody gets in at the port.
func TestFullCone(t *testing.T) {
	a, _, b := natPair(t, NATConfig{FullCone: 4341, FullConeHost: "192.168.1.2"})
	server, err := a.ListenPacket("udp4", "192.168.1.2:4341")
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	conn, err := b.Dial(t.Context(), "udp4", "203.0.113.1:4341")
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte("unasked"))
	require.NoError(t, err)
	buf := make([]byte, 10)
	require.NoError(t, server.SetReadDeadline(time.Now().Add(awaitLimit)))
	n, from, err := server.ReadFrom(buf)
	require.NoError(t, err)
	assert.Equal(t, "unasked", string(buf[:n]))
	_, err = server.WriteTo([]byte("back"), from)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(awaitLimit)))
	n, err = conn.Read(buf)
	require.NoError(t, err)
	assert.Equal(t, "back", string(buf[:n]))
}
