package control_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/lisp"
)

// picky is a Worker that takes what has an odd last octet and answers it, and
// leaves its number to the loop.
type picky struct {
	out     []lisp.Datagram
	applied chan byte
	left    []byte
}

func (p *picky) Step(_ time.Time, d lisp.Datagram) bool {
	last := d.Bytes[len(d.Bytes)-1]
	if last%2 == 0 {
		return false
	}
	p.out = append(p.out, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: append([]byte("answer"), last)})
	p.left = append(p.left, last)
	return true
}

func (p *picky) Flush() ([]lisp.Datagram, func(time.Time)) {
	out, left := p.out, p.left
	p.out, p.left = nil, nil
	if len(left) == 0 {
		return nil, nil
	}
	return out, func(time.Time) {
		for _, b := range left {
			p.applied <- b
		}
	}
}

// asked is a core that notes what it is offered.
type asked struct{ got chan []byte }

func (a *asked) Handle(_ time.Time, d lisp.Datagram) bool {
	a.got <- append([]byte(nil), d.Bytes...)
	return true
}
func (*asked) Advance(time.Time)           {}
func (*asked) Deadline() time.Time         { return time.Time{} }
func (*asked) Next() (lisp.Datagram, bool) { return lisp.Datagram{}, false }

// TestRunnerWorkers: Workers answer from the socket that was asked, what they
// leave runs on the loop, and what they decline goes to the other cores, not to
// the core of theirs; messages that come first to another core pass them by.
func TestRunnerWorkers(t *testing.T) {
	conn, err := control.Listen(t.Context(), control.ListenConfig{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Sockets: 2})
	require.NoError(t, err)
	applied := make(chan byte, 10)
	ms, rtr := &asked{make(chan []byte, 10)}, &asked{make(chan []byte, 10)}
	r, err := control.NewRunner(control.RunnerConfig{
		Conn:      conn,
		Cores:     map[control.Role]control.Core{control.RoleMapServer: ms, control.RoleRTR: rtr},
		NewWorker: func() control.Worker { return &picky{applied: applied} },
	})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()

	server := conn.LocalAddrs()[0]
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer func() { _ = pc.Close() }()
	send := func(t lisp.Type, last byte) {
		_, _ = pc.WriteToUDPAddrPort([]byte{byte(t) << 4, last}, server)
	}
	buf := make([]byte, 100)
	for _, last := range []byte{1, 3, 5} {
		send(lisp.TypeMapRegister, last)
		require.NoError(t, pc.SetReadDeadline(time.Now().Add(time.Minute)))
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		require.NoError(t, err)
		assert.Equal(t, server, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		assert.Equal(t, append([]byte("answer"), last), buf[:n])
		assert.Equal(t, last, <-applied)
	}
	send(lisp.TypeMapRegister, 2)
	assert.Equal(t, []byte{byte(lisp.TypeMapRegister) << 4, 2}, <-rtr.got)
	// An RTR is offered ECMs first: no Worker sees them.
	send(lisp.TypeEncapsulatedControl, 7)
	assert.Equal(t, []byte{byte(lisp.TypeEncapsulatedControl) << 4, 7}, <-rtr.got)
	assert.Empty(t, ms.got)
	assert.Empty(t, applied)
	require.NoError(t, r.Close())
	require.NoError(t, <-done)
	st := r.Stats()
	assert.EqualValues(t, 5, st.Received)
	assert.EqualValues(t, 3, st.Sent)
	assert.Zero(t, st.Unclaimed)
}

func TestWorkersNeedAMapServer(t *testing.T) {
	conn := control.NewConn()
	_, err := control.NewRunner(control.RunnerConfig{
		Conn: conn, Cores: map[control.Role]control.Core{control.RoleRTR: &asked{}},
		NewWorker: func() control.Worker { return &picky{} },
	})
	require.ErrorIs(t, err, control.ErrConfig)
	var _ control.Worker = (*mapserver.Worker)(nil)
}

// TestSharedPortIsNoticed: a port that somebody else has is refused, however
// many sockets are to share it.
func TestSharedPortIsNoticed(t *testing.T) {
	first, err := control.Listen(t.Context(), control.ListenConfig{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Sockets: 2})
	require.NoError(t, err)
	defer func() { _ = first.Close() }()
	_, err = control.Listen(context.Background(), control.ListenConfig{Addrs: first.LocalAddrs()[:1], Sockets: 2})
	require.ErrorContains(t, err, "in use")
}
