package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// PingConfig says what to send. Zero values mean the defaults.
type PingConfig struct {
	Count    int           // default 5
	Interval time.Duration // between requests, default 100 ms
	Wait     time.Duration // for answers after the last request, default 2 s
	Size     int           // octets of data, default 56, at least 16
	ID       uint16        // of the echo requests; 0: from the process id
}

// PingResult is what came back. It can be printed and encoded as JSON.
type PingResult struct {
	To       netip.Addr `json:"to"`
	Sent     int        `json:"sent"`
	Received int        `json:"received"`
	// RTTs holds the round-trip time of each request in the order sent, -1 if
	// no answer came.
	RTTs []time.Duration `json:"rttNanoseconds"`
	// Duplicates and Foreign count answers that came twice, and ICMP errors
	// about our requests.
	Duplicates int      `json:"duplicates,omitempty"`
	Errors     []string `json:"errors,omitempty"`
}

// First is the round-trip time of the first request, -1 if it was lost.
func (r PingResult) First() time.Duration {
	if len(r.RTTs) == 0 {
		return -1
	}
	return r.RTTs[0]
}

// MinMedian returns the shortest round-trip time and the middle one of all but
// the first, which may have waited for a mapping; -1 if there are none.
func (r PingResult) MinMedian() (lowest, median time.Duration) {
	var got []time.Duration
	for i, d := range r.RTTs {
		if d >= 0 && i > 0 {
			got = append(got, d)
		}
	}
	if len(got) == 0 {
		return -1, -1
	}
	sortDurations(got)
	return got[0], got[len(got)/2]
}

// Loss is the share of requests without an answer, in percent.
func (r PingResult) Loss() float64 {
	if r.Sent == 0 {
		return 0
	}
	return 100 * float64(r.Sent-r.Received) / float64(r.Sent)
}

// Ping sends echo requests over conn, a raw ICMP socket ("ip4:icmp" or
// "ip6:ipv6-icmp"), and collects the answers. It returns when all have come,
// when the wait after the last one is over, or when the context ends.
func Ping(ctx context.Context, conn net.PacketConn, to netip.Addr, cfg PingConfig) (PingResult, error) {
	cfg = cfg.withDefaults()
	p := pinger{cfg: cfg, to: to, sentAt: make([]time.Time, cfg.Count), result: PingResult{To: to}}
	for range cfg.Count {
		p.result.RTTs = append(p.result.RTTs, -1)
	}
	buf := make([]byte, 64<<10)
	start := time.Now()
	for p.result.Received < cfg.Count {
		if err := ctx.Err(); err != nil {
			return p.result, err
		}
		now := time.Now()
		next := start.Add(time.Duration(p.result.Sent) * cfg.Interval)
		if p.result.Sent < cfg.Count && !now.Before(next) {
			if err := p.send(conn, now); err != nil {
				return p.result, fmt.Errorf("ping %v: %w", to, err)
			}
			continue
		}
		if p.result.Sent == cfg.Count {
			if next = p.sentAt[cfg.Count-1].Add(cfg.Wait); !now.Before(next) {
				break
			}
		}
		// Short waits, so that the end of the context is noticed.
		if err := conn.SetReadDeadline(minTime(next, now.Add(200*time.Millisecond))); err != nil {
			return p.result, fmt.Errorf("ping %v: %w", to, err)
		}
		n, from, err := conn.ReadFrom(buf)
		switch {
		case err == nil:
			p.receive(buf[:n], from, time.Now())
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return p.result, fmt.Errorf("ping %v: %w", to, err)
		}
	}
	return p.result, nil
}

func (c PingConfig) withDefaults() PingConfig {
	if c.Count <= 0 {
		c.Count = 5
	}
	if c.Interval <= 0 {
		c.Interval = 100 * time.Millisecond
	}
	if c.Wait <= 0 {
		c.Wait = 2 * time.Second
	}
	if c.Size == 0 {
		c.Size = 56
	}
	c.Size = max(c.Size, 16)
	if c.ID == 0 {
		c.ID = uint16(os.Getpid())
	}
	return c
}

// pinger is one run of Ping.
type pinger struct {
	cfg    PingConfig
	to     netip.Addr
	sentAt []time.Time
	result PingResult
}

func (p *pinger) send(conn net.PacketConn, now time.Time) error {
	seq := p.result.Sent + 1
	data := make([]byte, p.cfg.Size)
	for i := range data {
		data[i] = byte(i)
	}
	binary.BigEndian.PutUint64(data, uint64(seq))
	var typ icmp.Type = ipv4.ICMPTypeEcho
	if p.to.Is6() {
		typ = ipv6.ICMPTypeEchoRequest
	}
	m := icmp.Message{Type: typ, Body: &icmp.Echo{ID: int(p.cfg.ID), Seq: seq, Data: data}}
	b, err := m.Marshal(nil) // ICMPv6: the kernel fills the checksum in
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(b, &net.IPAddr{IP: p.to.AsSlice(), Zone: p.to.Zone()}); err != nil {
		return err
	}
	p.sentAt[seq-1] = now
	p.result.Sent = seq
	return nil
}

// receive takes one ICMP message; those of others are ignored.
func (p *pinger) receive(b []byte, from net.Addr, now time.Time) {
	protocol := 1
	if p.to.Is6() {
		protocol = 58
	}
	m, err := icmp.ParseMessage(protocol, b)
	if err != nil {
		return
	}
	switch m.Type {
	case ipv4.ICMPTypeEchoReply, ipv6.ICMPTypeEchoReply:
		p.reply(m, from, now)
	case ipv4.ICMPTypeDestinationUnreachable, ipv6.ICMPTypeDestinationUnreachable, ipv6.ICMPTypePacketTooBig, ipv4.ICMPTypeTimeExceeded, ipv6.ICMPTypeTimeExceeded:
		if len(p.result.Errors) < 8 {
			p.result.Errors = append(p.result.Errors, fmt.Sprintf("%v, code %d, from %v", m.Type, m.Code, from))
		}
	}
}

func (p *pinger) reply(m *icmp.Message, from net.Addr, now time.Time) {
	e, ok := m.Body.(*icmp.Echo)
	if !ok || e.ID != int(p.cfg.ID) || e.Seq < 1 || e.Seq > p.result.Sent || len(e.Data) != p.cfg.Size {
		return
	}
	if a, ok := from.(*net.IPAddr); ok {
		if ip, _ := netip.AddrFromSlice(a.IP); ip.Unmap() != p.to.WithZone("") {
			return
		}
	}
	if binary.BigEndian.Uint64(e.Data) != uint64(e.Seq) {
		return
	}
	if p.result.RTTs[e.Seq-1] >= 0 {
		p.result.Duplicates++
		return
	}
	p.result.RTTs[e.Seq-1] = now.Sub(p.sentAt[e.Seq-1])
	p.result.Received++
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
