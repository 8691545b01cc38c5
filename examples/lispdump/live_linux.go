package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// captured is a packet, or why there are no more.
type captured struct {
	packet
	err error
}

// live prints what passes an interface until ctx ends. The goroutine that reads
// cannot be woken then: the process is to end next.
func (p *printer) live(ctx context.Context, name string) error {
	link, err := linkOf(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	h, err := pcapgo.NewEthernetHandle(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w (listening takes root or CAP_NET_RAW)", name, err)
	}
	// The default is the MTU, less than a frame, let alone one of offloading.
	if err := h.SetCaptureLength(maxLive); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	packets := make(chan captured, 256)
	go func() {
		for {
			data, info, err := h.ReadPacketData()
			c := captured{packet{data, info.Timestamp.UTC(), link}, err}
			select {
			case packets <- c:
			case <-ctx.Done():
				return
			}
			if c.err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-packets:
			if c.err != nil {
				return fmt.Errorf("interface %s: %w", name, c.err)
			}
			if err := p.packet(c.packet); err != nil {
				return err
			}
		}
	}
}

// maxLive is the largest packet that offloading makes, and its link header.
const maxLive = 1<<16 + 64

// linkOf returns the link type of an interface: a TUN and the like have packets
// without a link header.
func linkOf(name string) (uint32, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, errors.New("no such interface")
	}
	if len(i.HardwareAddr) == 0 && i.Flags&net.FlagLoopback == 0 {
		return uint32(layers.LinkTypeRaw), nil
	}
	return uint32(layers.LinkTypeEthernet), nil
}
