package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// responder is a raw ICMP socket whose other end answers as told.
type responder struct {
	net.PacketConn
	answer   func(seq int, m *icmp.Message) []delayed
	in       chan packet
	deadline time.Time
}

type delayed struct {
	after time.Duration
	from  string
	m     icmp.Message
}

type packet struct {
	b    []byte
	from string
}

func (r *responder) SetReadDeadline(t time.Time) error { r.deadline = t; return nil }

func (r *responder) WriteTo(b []byte, to net.Addr) (int, error) {
	protocol := 1
	if ip := to.(*net.IPAddr).IP; ip.To4() == nil {
		protocol = 58
	}
	m, err := icmp.ParseMessage(protocol, b)
	if err != nil {
		return 0, err
	}
	for _, d := range r.answer(m.Body.(*icmp.Echo).Seq, m) {
		answer, err := d.m.Marshal(nil)
		if err != nil {
			return 0, err
		}
		time.AfterFunc(d.after, func() { r.in <- packet{answer, d.from} })
	}
	return len(b), nil
}

func (r *responder) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-r.in:
		return copy(b, p.b), &net.IPAddr{IP: net.ParseIP(p.from)}, nil
	case <-time.After(time.Until(r.deadline)):
		return 0, nil, &net.OpError{Op: "read", Err: errTimeout}
	}
}

var errTimeout = deadlineError()

// deadlineError is what a real connection returns.
func deadlineError() error {
	a, b := net.Pipe()
	defer func() { _ = a.Close() }()
	defer func() { _ = b.Close() }()
	_ = a.SetReadDeadline(time.Unix(1, 0))
	_, err := a.Read(make([]byte, 1))
	return err
}

const peer = "192.0.2.2"

func TestPing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &responder{in: make(chan packet, 100)}
		r.answer = func(seq int, m *icmp.Message) []delayed {
			ok := icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: m.Body}
			switch seq {
			case 1: // held for a while
				return []delayed{{400 * time.Millisecond, peer, ok}}
			case 2: // lost
				return nil
			case 3: // doubled
				return []delayed{{time.Millisecond, peer, ok}, {2 * time.Millisecond, peer, ok}}
			case 4: // answers of others
				other := *m.Body.(*icmp.Echo)
				other.ID++
				short := *m.Body.(*icmp.Echo)
				short.Data = short.Data[:20]
				return []delayed{
					{time.Millisecond, peer, icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: &other}},
					{time.Millisecond, peer, icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: &short}},
					{time.Millisecond, "192.0.2.3", ok},
					{time.Millisecond, peer, icmp.Message{Type: ipv4.ICMPTypeEcho, Body: m.Body}},
					{5 * time.Millisecond, peer, ok},
				}
			}
			return []delayed{{3 * time.Millisecond, peer, ok}}
		}
		start := time.Now()
		res, err := Ping(t.Context(), r, netip.MustParseAddr(peer), PingConfig{Count: 5, Wait: time.Second})
		require.NoError(t, err)
		assert.Equal(t, PingResult{
			To: netip.MustParseAddr(peer), Sent: 5, Received: 4, Duplicates: 1,
			RTTs: []time.Duration{400 * time.Millisecond, -1, time.Millisecond, 5 * time.Millisecond, 3 * time.Millisecond},
		}, res)
		assert.Equal(t, 1400*time.Millisecond, time.Since(start), "the wait counts from the last request")
		assert.Equal(t, 400*time.Millisecond, res.First())
		lowest, median := res.MinMedian()
		assert.Equal(t, time.Millisecond, lowest)
		assert.Equal(t, 3*time.Millisecond, median)
		assert.InDelta(t, 20, res.Loss(), 0.01)
	})
}

func TestPingIPv6AndErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		to := netip.MustParseAddr("2001:db8::2")
		r := &responder{in: make(chan packet, 100), answer: func(seq int, m *icmp.Message) []delayed {
			if seq == 1 {
				return []delayed{{0, "2001:db8::9", icmp.Message{Type: ipv6.ICMPTypeDestinationUnreachable, Code: 3, Body: &icmp.DstUnreach{Data: make([]byte, 48)}}}}
			}
			return []delayed{{time.Millisecond, to.String(), icmp.Message{Type: ipv6.ICMPTypeEchoReply, Body: m.Body}}}
		}}
		res, err := Ping(t.Context(), r, to, PingConfig{Count: 2})
		require.NoError(t, err)
		assert.Equal(t, 1, res.Received)
		assert.Equal(t, time.Duration(-1), res.First())
		assert.Equal(t, []string{"destination unreachable, code 3, from 2001:db8::9"}, res.Errors)
	})
}

func TestPingEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		r := &responder{in: make(chan packet), answer: func(int, *icmp.Message) []delayed { return nil }}
		res, err := Ping(ctx, r, netip.MustParseAddr(peer), PingConfig{Count: 100})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Zero(t, res.Received)
	})
	assert.Equal(t, time.Duration(-1), PingResult{}.First())
	lowest, median := PingResult{}.MinMedian()
	assert.Equal(t, time.Duration(-1), lowest)
	assert.Equal(t, time.Duration(-1), median)
	assert.Zero(t, PingResult{}.Loss())
}

func dialer(ln net.Listener) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", ln.Addr().String())
	}
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- Receive(t.Context(), ln) }()
	res, err := Transfer(t.Context(), dialer(ln), 1<<20+3)
	require.NoError(t, err)
	assert.Equal(t, int64(1<<20+3), res.Octets)
	assert.Equal(t, ln.Addr().String(), res.To)
	assert.Positive(t, res.BitsPerSecond())
	if runtime.GOOS == "linux" {
		assert.Zero(t, res.SYNRetransmits)
		assert.Positive(t, res.MSS)
	}
	require.NoError(t, ln.Close())
	require.NoError(t, <-done)
	_, err = Transfer(t.Context(), dialer(ln), 1)
	require.Error(t, err)
	assert.Zero(t, TransferResult{}.BitsPerSecond())
}

// TestTransferNotices sends to receivers that do not get what was sent.
func TestTransferNotices(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, want string
		answer     []byte
	}{
		{"nothing", "no receipt", nil},
		{"too little", "got 1 octets of 1000", []byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}},
		{"changed", "got other data than was sent", []byte{0, 0, 0, 0, 0, 0, 0x3, 0xe8, 0, 0, 0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer func() { _ = ln.Close() }()
			go func() {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(io.Discard, c)
				_, _ = c.Write(tc.answer)
			}()
			_, err = Transfer(t.Context(), dialer(ln), 1000)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestTransferEnds(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never reads
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	dial := func(ctx context.Context) (net.Conn, error) {
		c, err := dialer(ln)(ctx)
		time.AfterFunc(time.Millisecond, func() { cancel(stop) })
		return c, err
	}
	_, err = Transfer(ctx, dial, 1<<40)
	require.ErrorIs(t, err, stop)
}
