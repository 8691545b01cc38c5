package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// tcpBuffer is the size of each write and read.
const tcpBuffer = 256 << 10

// dialTime bounds the wait for a connection, and for the first octet over it.
const dialTime = 10 * time.Second

type tcpResult struct {
	rate   float64 // octets a second that arrived, after a warm-up
	octets uint64  // that arrived at all
}

// tcp sends from a to b over a number of connections.
func tcp(c *contender, flows int, d time.Duration) (tcpResult, error) {
	l, err := c.b.Listen("tcp", netip.AddrPortFrom(c.target, 0).String())
	if err != nil {
		return tcpResult{}, err
	}
	defer func() { _ = l.Close() }()
	var received atomic.Uint64
	var wg sync.WaitGroup
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
		wg.Wait()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	var senders []net.Conn
	for range flows {
		out, err := c.a.Dial(ctx, "tcp", l.Addr().String())
		if err != nil {
			return tcpResult{}, err
		}
		conns = append(conns, out)
		senders = append(senders, out)
		in, err := l.Accept()
		if err != nil {
			return tcpResult{}, err
		}
		conns = append(conns, in)
		wg.Go(func() {
			buf := make([]byte, tcpBuffer)
			for {
				n, err := in.Read(buf)
				received.Add(uint64(n))
				if err != nil {
					return
				}
			}
		})
	}
	for _, out := range senders {
		wg.Go(func() {
			buf := make([]byte, tcpBuffer)
			for {
				if _, err := out.Write(buf); err != nil {
					return // it was closed
				}
			}
		})
	}
	time.Sleep(d / 4) // slow start
	first, start := received.Load(), time.Now()
	time.Sleep(d)
	took, total := time.Since(start), received.Load()
	for total == first { // on a machine so busy, a slow flow is not none
		if took > dialTime {
			return tcpResult{}, errors.New("nothing arrived")
		}
		time.Sleep(d)
		took, total = time.Since(start), received.Load()
	}
	if took <= 0 {
		return tcpResult{}, fmt.Errorf("the machine slept for %v", d)
	}
	return tcpResult{float64(total-first) / took.Seconds(), total}, nil
}
