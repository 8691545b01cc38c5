package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// source is a capture.
type source interface {
	gopacket.PacketDataSource
	LinkType() layers.LinkType
}

// file prints one capture file.
func (p *printer) file(ctx context.Context, name string, stdin io.Reader) error {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	src, err := openCapture(in)
	if err != nil {
		return err
	}
	return p.all(ctx, src, src.LinkType())
}

// openCapture tells pcap from pcapng by its first octets.
func openCapture(in io.Reader) (source, error) {
	b := bufio.NewReader(in)
	magic, err := b.Peek(4)
	if err != nil {
		return nil, err
	}
	if string(magic) == "\x0a\x0d\x0d\x0a" {
		return pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{SkipUnknownVersion: true})
	}
	return pcapgo.NewReader(b)
}

// all prints what src holds until its end or that of ctx.
func (p *printer) all(ctx context.Context, src gopacket.PacketDataSource, link gopacket.Decoder) error {
	for ctx.Err() == nil {
		data, info, err := src.ReadPacketData()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := p.packet(data, info, link); err != nil {
			return err
		}
	}
	return nil
}
