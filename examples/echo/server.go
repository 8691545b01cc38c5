package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// taken adds what to do when somebody else has the port.
func taken(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w (take another one with -p, for the client too)", err)
	}
	return err
}

// udpServer sends back every datagram, until the context ends.
func udpServer(ctx context.Context, o options, out io.Writer) (*figures, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp", o.address())
	if err != nil {
		return nil, taken(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	fmt.Fprintf(out, "listening at UDP %v\n", c.LocalAddr())
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil, nil
		}
		if err != nil {
			continue // such as an ICMP error about an earlier answer
		}
		_, _ = c.WriteTo(b[:n], from) // a lost answer is for the client to notice
	}
}

// tcpServer sends back what comes on every connection, until the context ends.
func tcpServer(ctx context.Context, o options, out io.Writer) (*figures, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", o.address())
	if err != nil {
		return nil, taken(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	fmt.Fprintf(out, "listening at TCP %v\n", ln.Addr())
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(out, "%v connected\n", c.RemoteAddr())
		end := context.AfterFunc(ctx, func() { _ = c.Close() })
		go func() {
			defer end()
			n, err := io.Copy(c, c)
			_ = c.Close()
			if err != nil {
				fmt.Fprintf(out, "%v: %v\n", c.RemoteAddr(), err)
			} else {
				fmt.Fprintf(out, "%v closed, %d octets\n", c.RemoteAddr(), n)
			}
		}()
	}
}
