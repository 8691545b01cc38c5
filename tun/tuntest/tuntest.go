// Package tuntest has a tun.Device in memory, for tests of what reads and writes
// one. It needs neither privileges nor an operating system, uses channels only,
// and so works in testing/synctest bubbles.
package tuntest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/xtrkit/xtrkit/tun"
)

// Config describes a Device. The zero value of each field is its default.
type Config struct {
	Name      string // default "lmn0"
	MTU       int    // in octets, default tun.DefaultMTU
	BatchSize int    // default 128
	// Queue is how many packets each direction holds, default 1024. Send waits,
	// and Write drops, when it is full.
	Queue int
}

// Device is a tun.Device whose host is the test: Send is what applications would
// send, Receive what they would get. All methods are safe for concurrent use.
type Device struct {
	cfg    Config
	toRead chan []byte
	taken  chan []byte
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	dropped int
}

var _ tun.Device = (*Device)(nil)

// New makes a device.
func New(cfg Config) *Device {
	if cfg.Name == "" {
		cfg.Name = tun.DefaultName
	}
	if cfg.MTU == 0 {
		cfg.MTU = tun.DefaultMTU
	}
	if cfg.BatchSize == 0 {
		cfg.BatchSize = 128
	}
	if cfg.Queue == 0 {
		cfg.Queue = 1024
	}
	return &Device{
		cfg:    cfg,
		toRead: make(chan []byte, cfg.Queue),
		taken:  make(chan []byte, cfg.Queue),
		closed: make(chan struct{}),
	}
}

// Send lets Read return the packets, in order. It copies them. The error is
// ctx's, or wraps os.ErrClosed.
func (d *Device) Send(ctx context.Context, packets ...[]byte) error {
	for _, p := range packets {
		select {
		case <-d.closed:
			return d.closedError("send")
		default:
		}
		select {
		case d.toRead <- bytes.Clone(p):
		case <-d.closed:
			return d.closedError("send")
		case <-ctx.Done():
			return fmt.Errorf("tuntest: send: %w", ctx.Err())
		}
	}
	return nil
}

// Receive waits for the next packet that was written, and returns it. The error is
// ctx's, or, when all that was written before Close is received, wraps
// os.ErrClosed.
func (d *Device) Receive(ctx context.Context) ([]byte, error) {
	select {
	case p := <-d.taken:
		return p, nil
	default:
	}
	select {
	case p := <-d.taken:
		return p, nil
	case <-d.closed:
		select {
		case p := <-d.taken:
			return p, nil
		default:
			return nil, d.closedError("receive")
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("tuntest: receive: %w", ctx.Err())
	}
}

// Dropped returns how many packets were written to a full queue.
func (d *Device) Dropped() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dropped
}

// Name returns Config.Name.
func (d *Device) Name() string { return d.cfg.Name }

// MTU returns Config.MTU.
func (d *Device) MTU() int { return d.cfg.MTU }

// BatchSize returns Config.BatchSize.
func (d *Device) BatchSize() int { return d.cfg.BatchSize }

// Read implements tun.Device: it waits for one packet and takes along what else
// is there.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	var p []byte
	select {
	case <-d.closed:
		return 0, d.closedError("read")
	default:
	}
	select {
	case p = <-d.toRead:
	case <-d.closed:
		return 0, d.closedError("read")
	}
	most := min(len(bufs), d.cfg.BatchSize)
	for n := 0; ; {
		if len(bufs[n])-offset < len(p) {
			return 0, fmt.Errorf("tuntest: a buffer for %d octets is too short for a packet of %d", len(bufs[n])-offset, len(p))
		}
		sizes[n] = copy(bufs[n][offset:], p)
		if n++; n == most {
			return n, nil
		}
		select {
		case p = <-d.toRead:
		default:
			return n, nil
		}
	}
}

// Write implements tun.Device. As the real one may, it spoils the headroom and
// the packets, after it has copied them.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	if offset < tun.Headroom {
		return 0, fmt.Errorf("tuntest: offset %d is less than tun.Headroom", offset)
	}
	select {
	case <-d.closed:
		return 0, d.closedError("write")
	default:
	}
	for _, b := range bufs {
		select {
		case d.taken <- bytes.Clone(b[offset:]):
		default:
			d.mu.Lock()
			d.dropped++
			d.mu.Unlock()
		}
		for i := offset - tun.Headroom; i < len(b); i++ {
			b[i] = 0xdb
		}
	}
	return len(bufs), nil
}

// Close unblocks Read, Send and Receive. It is idempotent.
func (d *Device) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

func (d *Device) closedError(op string) error {
	return fmt.Errorf("tuntest: %s: %w", op, os.ErrClosed)
}
