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
	"slices"
	"time"
)

// TransferResult is what a TCP transfer was like, as its sender saw it.
type TransferResult struct {
	To      string        `json:"to"`
	Octets  int64         `json:"octets"`
	Connect time.Duration `json:"connectNanoseconds"` // until the handshake was done
	Elapsed time.Duration `json:"elapsedNanoseconds"` // from then on, until the receiver had everything
	// SYNRetransmits says how often the SYN was sent again; -1 if the system
	// does not tell. Retransmits counts all segments sent again.
	SYNRetransmits int `json:"synRetransmits"`
	Retransmits    int `json:"retransmits"`
	MSS            int `json:"mss,omitempty"` // octets of data in one segment
}

// BitsPerSecond is the throughput.
func (r TransferResult) BitsPerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Octets) * 8 / r.Elapsed.Seconds()
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// receipt is what the receiver answers: the octets it got and their checksum.
const receiptLen = 12

// Receive accepts connections until ln is closed or the context ends, reads each to its end and
// answers with what it got. It returns nil then.
func Receive(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go receive(ctx, c)
	}
}

func receive(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	sum := crc32.New(crcTable)
	n, err := io.CopyBuffer(sum, onlyReader{c}, make([]byte, 256<<10))
	if err != nil {
		return // the sender sees the missing receipt
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(n))
	_, _ = c.Write(binary.BigEndian.AppendUint32(b, sum.Sum32()))
}

// onlyReader hides other methods, so that CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// Transfer connects with dial, sends octets of random data and waits for the
// receipt of Receive. Data that arrives changed is an error.
func Transfer(ctx context.Context, dial func(context.Context) (net.Conn, error), octets int64) (TransferResult, error) {
	r := TransferResult{Octets: octets, SYNRetransmits: -1}
	start := time.Now()
	c, err := dial(ctx)
	if err != nil {
		return r, err
	}
	defer func() { _ = c.Close() }()
	r.Connect = time.Since(start)
	r.To = c.RemoteAddr().String()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if info, ok := tcpInfo(c); ok {
		r.SYNRetransmits = info.retransmits
	}

	start = time.Now()
	sum := crc32.New(crcTable)
	if err := sendRandom(io.MultiWriter(c, sum), octets); err != nil {
		return r, fmt.Errorf("send to %s: %w", r.To, cause(ctx, err))
	}
	if t, ok := c.(*net.TCPConn); ok {
		if err := t.CloseWrite(); err != nil {
			return r, fmt.Errorf("send to %s: %w", r.To, cause(ctx, err))
		}
	}
	var receipt [receiptLen]byte
	if _, err := io.ReadFull(c, receipt[:]); err != nil {
		return r, fmt.Errorf("no receipt from %s: %w", r.To, cause(ctx, err))
	}
	r.Elapsed = time.Since(start)
	if info, ok := tcpInfo(c); ok {
		r.Retransmits, r.MSS = info.retransmits, info.mss
	}
	if n := binary.BigEndian.Uint64(receipt[:]); n != uint64(octets) {
		return r, fmt.Errorf("%s got %d octets of %d", r.To, n, octets)
	}
	if got := binary.BigEndian.Uint32(receipt[8:]); got != sum.Sum32() {
		return r, fmt.Errorf("%s: %w", r.To, errOtherData)
	}
	return r, nil
}

// sendRandom writes data that cannot arrive shifted or swapped unnoticed.
func sendRandom(w io.Writer, octets int64) error {
	random := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 256<<10)
	for octets > 0 {
		n := min(int64(len(buf)), octets)
		_, _ = random.Read(buf[:n]) // never fails
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		octets -= n
	}
	return nil
}

// cause prefers the end of the context to the closed connection it led to.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func sortDurations(ds []time.Duration) { slices.Sort(ds) }
