package main

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Sizes beyond which a capture is damaged: no packet and no block of pcapng is
// as large, and memory is taken for what a file says only up to here.
const (
	maxPacket = 1 << 20
	maxBlock  = 1 << 24
)

// errNoCapture is for a file that is something else.
var errNoCapture = errors.New("neither pcap nor pcapng")

// packet is one of a capture.
type packet struct {
	data []byte // valid until the next one is read
	time time.Time
	link uint32 // LINKTYPE_ of www.tcpdump.org
}

// capture reads a pcap or pcapng file, of either octet order, also compressed
// with gzip. The readers of gopacket panic on some damaged files and leave out
// packets of a second link type, so this is not them.
type capture struct {
	r     *bufio.Reader
	off   int64 // octets read
	buf   []byte
	order binary.ByteOrder

	// pcap
	link uint32
	nano bool // fractions of a second are nanoseconds

	// pcapng
	ng         bool
	interfaces []captureInterface // of the section
}

// captureInterface is what pcapng says about the packets of one interface.
type captureInterface struct {
	link    uint32
	snapLen uint32 // 0: no limit
	units   uint64 // of time stamps, per second
}

// openCapture reads the head of a capture.
func openCapture(in io.Reader) (*capture, error) {
	c := &capture{r: bufio.NewReader(in)}
	if magic, _ := c.r.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(c.r)
		if err != nil {
			return nil, err
		}
		c.r = bufio.NewReader(z)
	}
	magic, err := c.r.Peek(4)
	switch {
	case len(magic) == 0 && errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: empty", errNoCapture)
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case len(magic) < 4:
		return nil, fmt.Errorf("%w: only %d octets", errNoCapture, len(magic))
	case string(magic) == "\x0a\x0d\x0d\x0a":
		c.ng = true
		return c, nil // next reads the head of each section
	}
	switch string(magic) {
	case "\xa1\xb2\xc3\xd4":
		c.order = binary.BigEndian
	case "\xd4\xc3\xb2\xa1":
		c.order = binary.LittleEndian
	case "\xa1\xb2\x3c\x4d":
		c.order, c.nano = binary.BigEndian, true
	case "\x4d\x3c\xb2\xa1":
		c.order, c.nano = binary.LittleEndian, true
	default:
		return nil, fmt.Errorf("%w: it starts with %x", errNoCapture, magic)
	}
	head, err := c.read(24)
	if err != nil {
		return nil, err
	}
	c.link = c.order.Uint32(head[20:]) & 0xffff // the rest is about check sequences
	return c, nil
}

// read returns the next n octets, until the next call.
func (c *capture) read(n int) ([]byte, error) {
	if cap(c.buf) < n {
		c.buf = make([]byte, n)
	}
	got, err := io.ReadFull(c.r, c.buf[:n])
	c.off += int64(got)
	if err != nil {
		return nil, c.cut(err)
	}
	return c.buf[:n], nil
}

// cut makes of the end of the file, where it may not be, an error that says so.
func (c *capture) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return c.damaged(c.off, "cut short")
	}
	return err
}

// damaged says what is wrong with the file, and where.
func (c *capture) damaged(off int64, format string, args ...any) error {
	return fmt.Errorf("damaged at octet %d: %s", off, fmt.Sprintf(format, args...))
}

// next returns the next packet, or io.EOF if the capture ends where it may.
func (c *capture) next() (packet, error) {
	for {
		if _, err := c.r.Peek(1); errors.Is(err, io.EOF) {
			return packet{}, io.EOF
		} else if err != nil {
			return packet{}, c.cut(err) // of the compressed file
		}
		if !c.ng {
			return c.record()
		}
		p, ok, err := c.block()
		if err != nil || ok {
			return p, err
		}
	}
}

// record reads a packet of a pcap file.
func (c *capture) record() (packet, error) {
	start := c.off
	head, err := c.read(16)
	if err != nil {
		return packet{}, err
	}
	fraction := int64(c.order.Uint32(head[4:]))
	if !c.nano {
		fraction *= 1000
	}
	p := packet{time: time.Unix(int64(c.order.Uint32(head)), fraction).UTC(), link: c.link}
	// Writers do not keep to the snapshot length of the head: only sense counts.
	n := c.order.Uint32(head[8:])
	if n > maxPacket {
		return packet{}, c.damaged(start, "a packet of %d octets", n)
	}
	p.data, err = c.read(int(n))
	return p, err
}

// Types of pcapng blocks.
const (
	blockSection        = 0x0a0d0d0a
	blockInterface      = 1
	blockPacketObsolete = 2
	blockSimplePacket   = 3
	blockEnhancedPacket = 6
)

// block reads a block of a pcapng file; ok is false if it holds no packet.
func (c *capture) block() (p packet, ok bool, err error) {
	start := c.off
	head, err := c.r.Peek(12)
	if err != nil {
		c.off += int64(len(head))
		return p, false, c.cut(err)
	}
	// The section header is the same in both octet orders, which it tells.
	section := binary.BigEndian.Uint32(head) == blockSection
	if section {
		switch binary.BigEndian.Uint32(head[8:]) {
		case 0x1a2b3c4d:
			c.order = binary.BigEndian
		case 0x4d3c2b1a:
			c.order = binary.LittleEndian
		default:
			return p, false, c.damaged(start, "a section of unknown octet order")
		}
	}
	typ, n := c.order.Uint32(head), c.order.Uint32(head[4:])
	if n < 12 || n > maxBlock || n%4 != 0 {
		return p, false, c.damaged(start, "a block of %d octets", n)
	}
	b, err := c.read(int(n))
	if err != nil {
		return p, false, err
	}
	b = b[8 : n-4]
	if section {
		c.interfaces = c.interfaces[:0]
		return p, false, nil
	}
	need := map[uint32]int{blockInterface: 8, blockPacketObsolete: 20, blockSimplePacket: 4, blockEnhancedPacket: 20}[typ]
	if len(b) < need {
		return p, false, c.damaged(start, "a block of %d octets and type %d", n, typ)
	}
	switch typ {
	case blockInterface:
		c.interfaces = append(c.interfaces, c.describe(b))
		return p, false, nil
	case blockEnhancedPacket:
		p, err = c.packet(start, c.order.Uint32(b), c.order.Uint32(b[12:]), b[4:12], b[20:])
	case blockPacketObsolete:
		p, err = c.packet(start, uint32(c.order.Uint16(b)), c.order.Uint32(b[12:]), b[4:12], b[20:])
	case blockSimplePacket:
		n := min(c.order.Uint32(b), uint32(len(b)-4))
		if len(c.interfaces) > 0 && c.interfaces[0].snapLen > 0 {
			n = min(n, c.interfaces[0].snapLen)
		}
		p, err = c.packet(start, 0, n, nil, b[4:])
	default:
		return p, false, nil
	}
	return p, err == nil, err
}

// describe reads an interface description, b.
func (c *capture) describe(b []byte) captureInterface {
	i := captureInterface{link: uint32(c.order.Uint16(b)), snapLen: c.order.Uint32(b[4:]), units: 1_000_000}
	const resolution = 9
	for b = b[8:]; len(b) >= 4; {
		code, n := c.order.Uint16(b), int(c.order.Uint16(b[2:]))
		if code == 0 || n > len(b)-4 {
			break
		}
		if code == resolution && n == 1 {
			i.units = timeUnits(b[4])
		}
		b = b[min(4+(n+3)&^3, len(b)):]
	}
	return i
}

// timeUnits returns how many units of a time stamp make a second, by the option
// that says it: a power of 10 or, with the high bit set, of 2. What does not
// fit is taken as microseconds.
func timeUnits(resolution uint8) uint64 {
	base, exponent, most := uint64(10), resolution, uint8(19)
	if resolution&0x80 != 0 {
		base, exponent, most = 2, resolution&0x7f, 63
	}
	if exponent > most {
		return 1_000_000
	}
	units := uint64(1)
	for range exponent {
		units *= base
	}
	return units
}

// packet makes a packet of the n octets of data that were captured.
func (c *capture) packet(start int64, iface, n uint32, stamp, data []byte) (packet, error) {
	switch {
	case uint64(iface) >= uint64(len(c.interfaces)):
		return packet{}, c.damaged(start, "a packet of interface %d of %d", iface, len(c.interfaces))
	case uint64(n) > uint64(len(data)):
		return packet{}, c.damaged(start, "a packet of %d octets in a block that has room for %d", n, len(data))
	}
	i := c.interfaces[iface]
	p := packet{data: data[:n], link: i.link}
	if stamp != nil {
		t := uint64(c.order.Uint32(stamp))<<32 | uint64(c.order.Uint32(stamp[4:]))
		fraction := float64(t%i.units) / float64(i.units) * 1e9
		// A year of five digits is nonsense, which JSON cannot have.
		if seconds := t / i.units; seconds < 250_000_000_000 {
			p.time = time.Unix(int64(seconds), int64(fraction)).UTC()
		}
	}
	return p, nil
}
