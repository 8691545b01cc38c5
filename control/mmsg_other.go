//go:build !linux

package control

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/xtrkit/xtrkit/lisp"
)

// batchConn is for Linux only: newBatchConn makes none here.
type batchConn struct{}

func newBatchConn(*net.UDPConn, netip.AddrPort) *batchConn { return nil }

func (*batchConn) read([]lisp.Datagram) (int, error)  { return 0, errors.ErrUnsupported }
func (*batchConn) write([]lisp.Datagram) (int, error) { return 0, errors.ErrUnsupported }

func sharePort(syscall.RawConn) error { return errors.ErrUnsupported }

func receiveBuffer(pc *net.UDPConn, size int) { _ = pc.SetReadBuffer(size) }
