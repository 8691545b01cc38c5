package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"
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
		defer func() { _ = h.Close() }()
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

// listen opens a socket of its own, not one of pcapgo's: that one can't be closed while it is
// read, and a reader of an idle interface would never end.
func listen(name string) (*os.File, layers.LinkType, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, 0, fmt.Errorf("interface %s: %w", name, err)
	}
	link := layers.LinkTypeEthernet
	if len(i.HardwareAddr) == 0 && i.Flags&net.FlagLoopback == 0 {
		link = layers.LinkTypeRaw // a TUN and the like
	}
	// Of no protocol before it is bound, so that it has packets of this interface only.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("interface %s: %w", name, permission(err))
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: i.Index}); err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return f, link, nil
}

// everything is ETH_P_ALL in the order of the network.
var everything = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))

// read hands packets over until the socket is closed.
func read(ctx context.Context, f *os.File, index int, to chan<- captured) {
	buf := make([]byte, maxCaptured)
	for {
		n, err := f.Read(buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once; packets come again when the link is up
		}
		p := captured{data: bytes.Clone(buf[:n]), err: err, info: gopacket.CaptureInfo{
			Timestamp: time.Now(), CaptureLength: n, Length: n, InterfaceIndex: index,
		}}
		select {
		case to <- p:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
