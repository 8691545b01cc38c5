package main

import (
	"context"
	"fmt"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// captured is a packet, or why there are no more.
type captured struct {
	data []byte
	info gopacket.CaptureInfo
	err  error
}

// live prints what passes an interface until ctx ends. The goroutine that reads
// cannot be woken then: the process is to end next.
func (p *printer) live(ctx context.Context, name string) error {
	h, err := pcapgo.NewEthernetHandle(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w (this takes CAP_NET_RAW)", name, err)
	}
	packets := make(chan captured, 256)
	go func() {
		for {
			var c captured
			c.data, c.info, c.err = h.ReadPacketData()
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
				return c.err
			}
			if err := p.packet(c.data, c.info, layers.LinkTypeEthernet); err != nil {
				return err
			}
		}
	}
}
