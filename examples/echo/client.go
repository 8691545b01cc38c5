package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// headerLen is what a message needs: its number, and a mark that it is ours.
const headerLen = 16

const mark = 0x786b65636f6d6573

// figures are what a client says at the end.
type figures struct {
	To         string        `json:"to"`
	Sent       int           `json:"sent"`
	Received   int           `json:"received"`
	Duplicates int           `json:"duplicates,omitempty"`
	Reordered  int           `json:"reordered,omitempty"`
	Min        time.Duration `json:"minNanoseconds,omitempty"`
	Median     time.Duration `json:"medianNanoseconds,omitempty"`
	Max        time.Duration `json:"maxNanoseconds,omitempty"`
	// Gap is the longest time in which nothing came back though something was
	// awaited.
	Gap time.Duration `json:"gapNanoseconds,omitempty"`
}

// String prints the figures as ping does.
func (f *figures) String() string {
	var b strings.Builder
	loss := 0.0
	if f.Sent > 0 {
		loss = 100 * float64(f.Sent-f.Received) / float64(f.Sent)
	}
	fmt.Fprintf(&b, "--- %s\n%d sent, %d received, %.1f%% lost, %d duplicates, %d out of order\n", f.To, f.Sent, f.Received, loss, f.Duplicates, f.Reordered)
	if f.Received > 0 {
		ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
		fmt.Fprintf(&b, "round trip min/median/max %.3f/%.3f/%.3f ms, longest silence %.0f ms\n", ms(f.Min), ms(f.Median), ms(f.Max), ms(f.Gap))
	}
	return b.String()
}

// book keeps what was sent and what came back. It is safe for concurrent use.
type book struct {
	mu      sync.Mutex
	sent    []time.Time
	rtts    []time.Duration // by number; -1: nothing yet
	figures figures
	last    int       // the highest number that came back
	heard   time.Time // when something came last, or was first awaited
	all     chan struct{}
	want    int // so many and no more are sent; 0: nobody knows
	out     io.Writer
}

func newBook(o options, to net.Addr, out io.Writer) *book {
	return &book{figures: figures{To: to.String()}, last: -1, want: o.count, all: make(chan struct{}), out: out}
}

// send notes a message and returns its number.
func (b *book) send(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.figures.Received == len(b.sent) {
		b.heard = now // nothing was awaited until now
	}
	b.sent, b.rtts = append(b.sent, now), append(b.rtts, -1)
	return len(b.sent) - 1
}

// receive notes what came back.
func (b *book) receive(now time.Time, message []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(message) < headerLen || binary.BigEndian.Uint64(message[8:]) != mark {
		return
	}
	n := int(binary.BigEndian.Uint64(message))
	switch {
	case n < 0 || n >= len(b.sent):
		return
	case b.rtts[n] >= 0:
		b.figures.Duplicates++
		return
	case n < b.last:
		b.figures.Reordered++
	}
	b.last = max(b.last, n)
	b.rtts[n] = now.Sub(b.sent[n])
	b.figures.Gap, b.heard = max(b.figures.Gap, now.Sub(b.heard)), now
	b.figures.Received++
	fmt.Fprintf(b.out, "%d octets back, number %d, after %.3f ms\n", len(message), n, float64(b.rtts[n])/float64(time.Millisecond))
	if b.figures.Received == b.want {
		close(b.all)
	}
}

// result makes the figures.
func (b *book) result() *figures {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.figures
	f.Sent = len(b.sent)
	back := slices.DeleteFunc(slices.Clone(b.rtts), func(d time.Duration) bool { return d < 0 })
	if len(back) > 0 {
		slices.Sort(back)
		f.Min, f.Median, f.Max = back[0], back[len(back)/2], back[len(back)-1]
	}
	return &f
}

// pace sends messages at the interval, until all are sent or the context ends, and
// then waits for what is missing.
func (b *book) pace(ctx context.Context, o options, write func([]byte) error) error {
	t := time.NewTicker(o.interval)
	defer t.Stop()
	message := make([]byte, o.size)
	binary.BigEndian.PutUint64(message[8:], mark)
	for n := 0; o.count == 0 || n < o.count; n++ {
		if n > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
			}
		}
		binary.BigEndian.PutUint64(message, uint64(b.send(time.Now())))
		if err := write(message); err != nil {
			return err
		}
	}
	wait := time.NewTimer(o.wait)
	defer wait.Stop()
	select {
	case <-b.all:
	case <-ctx.Done():
	case <-wait.C:
	}
	return nil
}

// udpClient sends datagrams, one a message. What the network refuses, for want of a
// route or because nobody listens, is lost and does not end it.
func udpClient(ctx context.Context, o options, out io.Writer) (*figures, error) {
	d, err := o.dialer("udp")
	if err != nil {
		return nil, err
	}
	c, err := d.DialContext(ctx, "udp", o.address())
	if err != nil {
		return nil, err
	}
	b := newBook(o, c.RemoteAddr(), out)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 1<<16)
		for {
			n, err := c.Read(buf)
			switch {
			case err == nil:
				b.receive(time.Now(), buf[:n])
			case errors.Is(err, net.ErrClosed):
				return
			default:
				fmt.Fprintln(out, err)
			}
		}
	}()
	err = b.pace(ctx, o, func(m []byte) error {
		if _, err := c.Write(m); err != nil {
			fmt.Fprintln(out, err)
		}
		return nil
	})
	_ = c.Close()
	<-read
	return b.result(), err
}

// tcpClient sends messages in one stream.
func tcpClient(ctx context.Context, o options, out io.Writer) (*figures, error) {
	d, err := o.dialer("tcp")
	if err != nil {
		return nil, err
	}
	c, err := d.DialContext(ctx, "tcp", o.address())
	if err != nil {
		return nil, err
	}
	b := newBook(o, c.RemoteAddr(), out)
	read := make(chan error, 1)
	go func() {
		buf := make([]byte, o.size)
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				read <- err
				return
			}
			b.receive(time.Now(), buf)
		}
	}()
	err = b.pace(ctx, o, func(m []byte) error {
		if err := c.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		_, err := c.Write(m)
		return err
	})
	_ = c.Close()
	if cause := <-read; !errors.Is(cause, net.ErrClosed) && !errors.Is(cause, os.ErrDeadlineExceeded) {
		err = errors.Join(err, fmt.Errorf("the connection ended: %w", cause))
	}
	return b.result(), err
}
