package node

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// maxCaptured is the largest packet that offloading makes, and its link header.
const maxCaptured = 1<<16 + 64

// captured is a packet and where it passed.
type captured struct {
	data []byte
	info gopacket.CaptureInfo
	err  error
}

// Capture writes what passes interfaces to w, in the form of pcapng, until the
// context ends. Without interfaces it takes the device and the uplinks.
func (n *Node) Capture(ctx context.Context, names []string, w io.Writer) error {
	if len(names) == 0 {
		names = append(names, n.device.Name())
		n.mu.Lock()
		for _, i := range n.seen {
			names = append(names, i.Name)
		}
		n.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	packets := make(chan captured, 256)
	var out *pcapgo.NgWriter
	for index, name := range names {
		h, link, err := listen(name)
		if err != nil {
			return err
		}
		defer h.Close()
		about := pcapgo.NgInterface{Name: name, LinkType: link, SnapLength: maxCaptured}
		if out == nil {
			out, err = pcapgo.NewNgWriterInterface(w, about, pcapgo.DefaultNgWriterOptions)
		} else {
			_, err = out.AddInterface(about)
		}
		if err != nil {
			return err
		}
		go read(ctx, h, index, packets)
	}
	if err := out.Flush(); err != nil { // the header, so that readers begin
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-packets:
			if p.err != nil {
				return p.err
			}
			if err := out.WritePacket(p.info, p.data); err != nil {
				return err
			}
			if len(packets) == 0 {
				if err := out.Flush(); err != nil {
					return err
				}
			}
		}
	}
}

func listen(name string) (*pcapgo.EthernetHandle, layers.LinkType, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, 0, fmt.Errorf("interface %s: %w", name, err)
	}
	link := layers.LinkTypeEthernet
	if len(i.HardwareAddr) == 0 && i.Flags&net.FlagLoopback == 0 {
		link = layers.LinkTypeRaw // a TUN and the like
	}
	h, err := pcapgo.NewEthernetHandle(name)
	if err != nil {
		return nil, 0, fmt.Errorf("interface %s: %w", name, permission(err))
	}
	if err := h.SetCaptureLength(maxCaptured); err != nil {
		h.Close()
		return nil, 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return h, link, nil
}

// read hands packets over until the handle is closed, which wakes nobody: it ends
// with the next packet then.
func read(ctx context.Context, h *pcapgo.EthernetHandle, index int, to chan<- captured) {
	for {
		data, info, err := h.ReadPacketData()
		info.InterfaceIndex = index
		select {
		case to <- captured{data, info, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
