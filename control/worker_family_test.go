package control_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
)

// relay is a Worker that passes everything on, as a Map-Server does to ETRs.
type relay struct {
	to  netip.AddrPort
	out []lisp.Datagram
}

func (r *relay) Step(_ time.Time, d lisp.Datagram) bool {
	answer := lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: []byte("answer")}
	r.out = append(r.out, lisp.Datagram{Remote: r.to, Bytes: append([]byte(nil), d.Bytes...)}, answer)
	return true
}

func (r *relay) Flush() ([]lisp.Datagram, func(time.Time)) {
	out := r.out
	r.out = nil
	return out, nil
}

// TestWorkersSendToTheOtherFamily: what came by IPv4 may have to go to an ETR or
// an ITR-RLOC that is IPv6, which the socket it came by can't send to.
func TestWorkersSendToTheOtherFamily(t *testing.T) {
	six, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		require.NotEqual(t, "1", os.Getenv("XTRKIT_REQUIRE_PRIVILEGED"), "no IPv6 here: %v", err)
		t.Skipf("no IPv6 here: %v", err)
	}
	defer func() { _ = six.Close() }()
	conn, err := control.Listen(t.Context(), control.ListenConfig{Sockets: 2, Addrs: []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0"),
	}})
	require.NoError(t, err)
	to := six.LocalAddr().(*net.UDPAddr).AddrPort()
	r, err := control.NewRunner(control.RunnerConfig{
		Conn:      conn,
		Cores:     map[control.Role]control.Core{control.RoleMapServer: &asked{make(chan []byte, 10)}},
		NewWorker: func() control.Worker { return &relay{to: to} },
	})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()

	four, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer func() { _ = four.Close() }()
	msg := []byte{byte(lisp.TypeMapRegister) << 4, 1}
	_, err = four.WriteToUDPAddrPort(msg, conn.LocalAddrs()[0])
	require.NoError(t, err)
	buf := make([]byte, 100)
	for _, c := range []struct {
		pc   *net.UDPConn
		want []byte
	}{{four, []byte("answer")}, {six, msg}} {
		require.NoError(t, c.pc.SetReadDeadline(time.Now().Add(time.Minute)))
		n, _, err := c.pc.ReadFromUDPAddrPort(buf)
		if assert.NoError(t, err) {
			assert.Equal(t, c.want, buf[:n])
		}
	}
	require.NoError(t, r.Close())
	require.NoError(t, <-done)
	assert.Zero(t, r.Stats().SendErrors)
}
