package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/lisp/lisplayers"
)

// printer prints packets as the options say. One goroutine at a time.
type printer struct {
	options
	out    io.Writer
	counts counts
	// unknownLinks counts the packets that could not be looked at, by link type.
	unknownLinks map[uint32]int
}

// counts is what was seen.
type counts struct {
	Packets, Messages, Data, Malformed, Right, Wrong int
}

func (c counts) String() string {
	return fmt.Sprintf("%d packets: %d messages, %d data, %d malformed; digests: %d right, %d wrong",
		c.Packets, c.Messages, c.Data, c.Malformed, c.Right, c.Wrong)
}

// line is what is printed of a packet; the names are those of -json.
type line struct {
	Time    time.Time      `json:"time"`
	Src     netip.AddrPort `json:"src"`
	Dst     netip.AddrPort `json:"dst"`
	Type    string         `json:"type"`
	Text    string         `json:"text"`
	Auth    string         `json:"auth,omitempty"`
	Message lisp.Message   `json:"message,omitempty"`
	Inner   []lisp.Message `json:"inner,omitempty"`
	Error   string         `json:"error,omitempty"`
}

// packet prints one packet, if there is LISP in it.
func (p *printer) packet(c packet) error {
	p.counts.Packets++
	first, data, known := linkLayer(c.link, c.data)
	if !known {
		if p.unknownLinks == nil {
			p.unknownLinks = map[uint32]int{}
		}
		p.unknownLinks[c.link]++
		return nil
	}
	l, isLISP := p.describe(gopacket.NewPacket(data, first, gopacket.NoCopy))
	if !isLISP {
		return nil
	}
	l.Time = c.time
	return p.print(l)
}

// file prints one capture file; "-" is in.
func (p *printer) file(ctx context.Context, name string, in io.Reader) error {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return bare(err) // the caller names the file
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	c, err := openCapture(in)
	if err != nil {
		return bare(err)
	}
	for ctx.Err() == nil {
		packet, err := c.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return bare(err)
		}
		if err := p.packet(packet); err != nil {
			return err
		}
	}
	return nil
}

// bare takes operation and file name from an error of package os.
func bare(err error) error {
	if pathError, ok := errors.AsType[*os.PathError](err); ok {
		return pathError.Err
	}
	return err
}

// links says of which link types nothing could be printed.
func (p *printer) links() error {
	var err error
	for _, link := range slices.Sorted(maps.Keys(p.unknownLinks)) {
		err = errors.Join(err, fmt.Errorf("%d packets of link type %d, which is not known here", p.unknownLinks[link], link))
	}
	return err
}

// describe finds the LISP in a packet: messages from the outermost in, and what
// is wrong with the first layer that does not decode.
func (p *printer) describe(pkt gopacket.Packet) (l line, isLISP bool) {
	var src, dst netip.Addr
	var data *lisplayers.LISP
	var malformed error
	found := false
	for _, layer := range pkt.Layers() {
		switch layer := layer.(type) {
		case *layers.IPv4:
			if !found {
				src, _ = netip.AddrFromSlice(layer.SrcIP)
				dst, _ = netip.AddrFromSlice(layer.DstIP)
			}
		case *layers.IPv6:
			if !found {
				src, _ = netip.AddrFromSlice(layer.SrcIP)
				dst, _ = netip.AddrFromSlice(layer.DstIP)
			}
		case *layers.UDP:
			if !found && isLISPPort(layer.SrcPort, layer.DstPort) {
				found = true
				l.Src, l.Dst = netip.AddrPortFrom(src, uint16(layer.SrcPort)), netip.AddrPortFrom(dst, uint16(layer.DstPort))
			}
		case *lisplayers.LISP:
			if data == nil {
				data = layer
			}
		case *lisplayers.LISPControl:
			p.message(&l, layer)
		case gopacket.ErrorLayer:
			malformed = layer.Error()
		}
	}
	if !found {
		return l, false
	}
	switch {
	case malformed != nil && isOurs(malformed):
		p.counts.Malformed++
		l.Error = malformed.Error()
		if l.Type == "" {
			l.Type = "malformed"
		}
	case l.Message != nil:
		p.counts.Messages++
	case data != nil:
		p.counts.Data++
		if !p.data {
			return l, false
		}
	default:
		return l, false
	}
	p.text(&l, data, pkt)
	return l, true
}

// isOurs tells an error of LISP from one in the user packet inside.
func isOurs(err error) bool {
	return errors.Is(err, lisp.ErrTruncated) || errors.Is(err, lisp.ErrMalformed) || errors.Is(err, lisp.ErrUnsupported)
}

func isLISPPort(ports ...layers.UDPPort) bool {
	for _, port := range ports {
		if port == lisp.ControlPort || port == lisp.DataPort || port == lisp.VXLANGPEPort {
			return true
		}
	}
	return false
}

// message adds a control message, outermost first, and checks its digest.
func (p *printer) message(l *line, layer *lisplayers.LISPControl) {
	if l.Message == nil {
		l.Message, l.Type = layer.Message, layer.Message.Type().String()
	} else {
		l.Inner = append(l.Inner, layer.Message)
	}
	if len(p.secrets) == 0 {
		return
	}
	if e, ok := layer.Message.(*lisp.EncapsulatedControl); ok {
		if auth, err := e.RTRSecurity(); err == nil {
			l.add(p.check(auth, e.VerifyRTR))
		}
		return
	}
	if auth, ok := authentication(layer.Message); ok {
		l.add(p.check(auth, func(k lisp.Key) error { return lisp.Verify(layer.Contents, k) }))
	}
	if n, ok := layer.Message.(*lisp.MapNotify); ok {
		if auth, ok := n.RTRAuthentication(); ok && len(auth.Data) > 0 {
			l.add(p.check(auth, func(k lisp.Key) error { return lisp.VerifyRTRAuthentication(layer.Contents, k) }))
		}
	}
}

func (l *line) add(verdict string) {
	if l.Auth != "" {
		l.Auth += ", "
	}
	l.Auth += verdict
}

// authentication returns the authentication data that the site's key makes.
func authentication(m lisp.Message) (lisp.Authentication, bool) {
	switch m := m.(type) {
	case *lisp.MapRegister:
		return m.Auth, true
	case *lisp.MapNotify:
		return m.Auth, true
	case *lisp.MapNotifyAck:
		return m.Auth, true
	case *lisp.InfoRequest:
		return m.Auth, true
	case *lisp.InfoReply:
		return m.Auth, true
	default:
		return lisp.Authentication{}, false
	}
}

// check tries all secrets as the key that the message names.
func (p *printer) check(a lisp.Authentication, verify func(lisp.Key) error) string {
	if a.Algorithm == lisp.AlgorithmNone {
		return "not authenticated"
	}
	var err error
	for _, secret := range p.secrets {
		if err = verify(lisp.Key{ID: a.KeyID, Algorithm: a.Algorithm, Secret: secret}); err == nil {
			p.counts.Right++
			return "digest right"
		}
	}
	p.counts.Wrong++
	return "digest WRONG: " + err.Error()
}

// text says in a line what the packet is.
func (p *printer) text(l *line, data *lisplayers.LISP, pkt gopacket.Packet) {
	if data != nil {
		l.Text = data.Header.String()
		if l.Message != nil {
			l.Text += ": "
		}
	}
	switch {
	case l.Message != nil:
		l.Text += l.Message.String()
	case l.Error == "":
		l.Type = "data"
		if n := pkt.NetworkLayer(); n != nil {
			for _, layer := range pkt.Layers() { // the innermost
				if inner, ok := layer.(gopacket.NetworkLayer); ok {
					n = inner
				}
			}
			l.Text += fmt.Sprintf(": %s > %s", n.NetworkFlow().Src(), n.NetworkFlow().Dst())
		}
	}
}

func (p *printer) print(l line) error {
	if p.json {
		return json.NewEncoder(p.out).Encode(l)
	}
	text := l.Text
	if l.Error != "" {
		if text != "" {
			text += " "
		}
		text += "[malformed: " + l.Error + "]"
	}
	if l.Auth != "" {
		text += " [" + l.Auth + "]"
	}
	if _, err := fmt.Fprintf(p.out, "%s %s > %s %s\n", l.Time.Format("15:04:05.000000"), l.Src, l.Dst, text); err != nil {
		return err
	}
	if !p.tree {
		return nil
	}
	for _, m := range append([]lisp.Message{l.Message}, l.Inner...) {
		if m == nil {
			continue
		}
		if err := writeTree(p.out, m); err != nil {
			return err
		}
	}
	return nil
}
