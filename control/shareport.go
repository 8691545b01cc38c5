package control

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"github.com/xtrkit/xtrkit/internal/shareport"
)

// listenShared binds the port of first again, which it closes, so that others can
// share it. That first was bound alone shows that nobody else has the port.
func listenShared(ctx context.Context, first net.PacketConn, network string) (net.PacketConn, error) {
	address := first.LocalAddr().String()
	if err := first.Close(); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return onSocket(rc, shareport.Allow)
	}}
	return lc.ListenPacket(ctx, network, address)
}

// keepReceiving makes what arrives at the port of pc come to the n sockets of
// ours that share it, whoever else sends from it.
func keepReceiving(pc net.PacketConn, n int, v6 bool) error {
	c, ok := pc.(syscall.Conn)
	if !ok {
		return fmt.Errorf("control: share %v: not a socket", pc.LocalAddr())
	}
	rc, err := c.SyscallConn()
	if err == nil {
		err = onSocket(rc, func(fd int) error { return shareport.Keep(fd, n, v6) })
	}
	if err != nil {
		return fmt.Errorf("control: share %v: %w", pc.LocalAddr(), err)
	}
	return nil
}

// onSocket calls f with the descriptor of a socket.
func onSocket(rc syscall.RawConn, f func(fd int) error) error {
	var err error
	if e := rc.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}
