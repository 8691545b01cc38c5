package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// Paced is a TCP connection that sends random data at a steady rate until it is
// finished. One goroutine at a time.
type Paced struct {
	conn   net.Conn
	stop   chan struct{}
	result chan pacedResult
}

type pacedResult struct {
	octets int64
	sum    uint32
	err    error
}

// StartPaced sends chunk octets each interval, or later when the connection does
// not take them, to a Receive at the other end. It owns the connection.
func StartPaced(conn net.Conn, chunk int, interval time.Duration) *Paced {
	p := &Paced{conn: conn, stop: make(chan struct{}), result: make(chan pacedResult, 1)}
	go func() { p.result <- p.run(chunk, interval) }()
	return p
}

func (p *Paced) run(chunk int, interval time.Duration) (r pacedResult) {
	random, buf, sum := rand.NewChaCha8([32]byte{2}), make([]byte, chunk), crc32.New(crcTable)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			r.sum = sum.Sum32()
			return r
		case <-ticker.C:
		}
		_, _ = random.Read(buf) // never fails
		n, err := io.MultiWriter(p.conn, sum).Write(buf)
		r.octets += int64(n)
		if err != nil {
			r.err = err
			return r
		}
	}
}

// Finish ends the stream, waits for the receipt, and closes the connection. Data
// that was lost or changed is an error, and so is a connection that broke.
func (p *Paced) Finish(ctx context.Context) (TransferResult, error) {
	to := p.conn.RemoteAddr()
	defer func() { _ = p.conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = p.conn.Close() })
	defer stop()
	close(p.stop)
	sent := <-p.result
	r := TransferResult{To: to.String(), Octets: sent.octets, SYNRetransmits: -1}
	if sent.err != nil {
		return r, fmt.Errorf("send to %v: %w", to, cause(ctx, sent.err))
	}
	if t, ok := p.conn.(*net.TCPConn); ok {
		if err := t.CloseWrite(); err != nil {
			return r, fmt.Errorf("send to %v: %w", to, cause(ctx, err))
		}
	}
	var receipt [receiptLen]byte
	if _, err := io.ReadFull(p.conn, receipt[:]); err != nil {
		return r, fmt.Errorf("no receipt from %v: %w", to, cause(ctx, err))
	}
	if info, ok := tcpInfo(p.conn); ok {
		r.Retransmits, r.MSS = info.retransmits, info.mss
	}
	if n := binary.BigEndian.Uint64(receipt[:]); n != uint64(sent.octets) {
		return r, fmt.Errorf("%v got %d octets of %d", to, n, sent.octets)
	}
	if binary.BigEndian.Uint32(receipt[8:]) != sent.sum {
		return r, fmt.Errorf("%v: %w", to, errOtherData)
	}
	return r, nil
}

var errOtherData = errors.New("got other data than was sent")
