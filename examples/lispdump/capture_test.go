package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// request is a Map-Request behind IPv4 and UDP, 60 octets.
func request(t testing.TB) []byte {
	t.Helper()
	f, err := os.Open(captures + "05-rloc-probe-v4eid.pcap")
	require.NoError(t, err)
	defer f.Close()
	c, err := openCapture(f)
	require.NoError(t, err)
	p, err := c.next()
	require.NoError(t, err)
	return bytes.Clone(p.data[14:])
}

// cat appends numbers in the octet order, and octets as they are.
func cat(order binary.AppendByteOrder, parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = order.AppendUint32(b, uint32(p))
		case uint32:
			b = order.AppendUint32(b, p)
		case uint16:
			b = order.AppendUint16(b, p)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

// pcapOf makes a pcap file with one packet.
func pcapOf(order binary.AppendByteOrder, magic uint32, snapLen, link, fraction int, data []byte) []byte {
	head := cat(order, magic, uint16(2), uint16(4), 0, 0, snapLen, link)
	return append(head, cat(order, 1_700_000_000, fraction, len(data), len(data), data)...)
}

// blockOf makes a pcapng block.
func blockOf(order binary.AppendByteOrder, typ int, parts ...any) []byte {
	body := cat(order, parts...)
	body = append(body, make([]byte, -len(body)&3)...)
	return cat(order, typ, len(body)+12, body, len(body)+12)
}

func sectionOf(order binary.AppendByteOrder) []byte {
	return blockOf(order, blockSection, 0x1a2b3c4d, uint16(1), uint16(0), -1, -1)
}

func TestCaptureFormats(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	ip := request(t)
	ethernet := append([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 8, 0}, ip...)
	sll2 := append([]byte{8, 0, 19: 0}, ip...)
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	_, err := z.Write(pcapOf(le, 0xa1b2c3d4, 65535, 101, 5, ip))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	ng := func(order binary.AppendByteOrder, blocks ...[]byte) []byte {
		return append(sectionOf(order), bytes.Join(blocks, nil)...)
	}
	// A time stamp in microseconds, as nearly all have it.
	const micros = 1_700_000_000_000_005
	enhanced := func(order binary.AppendByteOrder, iface int, data []byte) []byte {
		return blockOf(order, blockEnhancedPacket, iface, uint32(micros>>32), uint32(micros&0xffffffff), len(data), len(data), data)
	}
	for name, tt := range map[string]struct {
		file    []byte
		packets int
		at      string // fraction of the second
	}{
		"pcap":                          {pcapOf(le, 0xa1b2c3d4, 65535, 1, 5, ethernet), 1, ".000005"},
		"pcap, big-endian":              {pcapOf(be, 0xa1b2c3d4, 65535, 1, 5, ethernet), 1, ".000005"},
		"pcap, nanoseconds":             {pcapOf(le, 0xa1b23c4d, 65535, 1, 5000, ethernet), 1, ".000005"},
		"pcap, nanoseconds, big-endian": {pcapOf(be, 0xa1b23c4d, 65535, 1, 5000, ethernet), 1, ".000005"},
		"pcap, gzip":                    {compressed.Bytes(), 1, ".000005"},
		"no snapshot length":            {pcapOf(le, 0xa1b2c3d4, 0, 1, 5, ethernet), 1, ".000005"},
		"more than the snapshot length": {pcapOf(le, 0xa1b2c3d4, 20, 1, 5, ethernet), 1, ".000005"},
		"check sequence in link type":   {pcapOf(le, 0xa1b2c3d4, 65535, 0x44000001, 5, ethernet), 1, ".000005"},
		"any interface, Linux SLL2":     {pcapOf(le, 0xa1b2c3d4, 65535, 276, 5, sll2), 1, ".000005"},
		"raw IPv4":                      {pcapOf(le, 0xa1b2c3d4, 65535, 228, 5, ip), 1, ".000005"},
		"no packets":                    {ng(le), 0, ""},
		"pcapng, interfaces of two link types": {ng(le,
			blockOf(le, blockInterface, uint16(1), uint16(0), 65535), blockOf(le, blockInterface, uint16(101), uint16(0), 0),
			enhanced(le, 0, ethernet), enhanced(le, 1, ip)), 2, ".000005"},
		"pcapng, big-endian, then little-endian": {append(
			ng(be, blockOf(be, blockInterface, uint16(101), uint16(0), 0), enhanced(be, 0, ip)),
			ng(le, blockOf(le, blockInterface, uint16(1), uint16(0), 0), enhanced(le, 0, ethernet))...), 2, ".000005"},
		"pcapng, nanoseconds": {ng(le,
			blockOf(le, blockInterface, uint16(101), uint16(0), 0, uint16(2), uint16(3), []byte("eth0"), uint16(9), uint16(1), []byte{9, 0, 0, 0}, 0),
			blockOf(le, blockEnhancedPacket, 0, uint32(micros*1000>>32), uint32(micros*1000&0xffffffff), len(ip), len(ip), ip)), 1, ".000005"},
		"pcapng, power of two": {ng(le,
			blockOf(le, blockInterface, uint16(101), uint16(0), 0, uint16(9), uint16(1), []byte{0x81, 0, 0, 0}),
			blockOf(le, blockEnhancedPacket, 0, 0, uint32(3_400_000_001), len(ip), len(ip), ip)), 1, ".500000"},
		"pcapng, simple packet": {ng(le,
			blockOf(le, blockInterface, uint16(101), uint16(0), 0), blockOf(le, 99, 1, 2, 3), blockOf(le, blockSimplePacket, len(ip), ip)), 1, ".000000"},
		"pcapng, obsolete packet": {ng(le,
			blockOf(le, blockInterface, uint16(101), uint16(0), 0),
			blockOf(le, blockPacketObsolete, uint16(0), uint16(0), uint32(micros>>32), uint32(micros&0xffffffff), len(ip), len(ip), ip)), 1, ".000005"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(file, tt.file, 0o600))
			out, errOut, code := dump(t, file)
			require.Zero(t, code, errOut)
			lines := bytes.Count([]byte(out), []byte("Map-Request probe"))
			assert.Equal(t, tt.packets, lines, out)
			assert.Contains(t, out, tt.at)
		})
	}
}

func TestNoCapture(t *testing.T) {
	le := binary.LittleEndian
	good, err := os.ReadFile(captures + "05-rloc-probe-v4eid.pcap")
	require.NoError(t, err)
	head := pcapOf(le, 0xa1b2c3d4, 65535, 1, 0, nil)[:24]
	iface := blockOf(le, blockInterface, uint16(101), uint16(0), 0)
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"text":              {[]byte("hello, world\n"), ": neither pcap nor pcapng: it starts with 68656c6c\n"},
		"empty":             {nil, ": neither pcap nor pcapng: empty\n"},
		"3 octets":          {good[:3], ": neither pcap nor pcapng: only 3 octets\n"},
		"cut in the head":   {good[:20], ": damaged at octet 20: cut short\n"},
		"cut in a record":   {good[:30], ": damaged at octet 30: cut short\n"},
		"cut in a packet":   {good[:60], ": damaged at octet 60: cut short\n"},
		"huge packet":       {append(head, cat(le, 0, 0, 0x7fffffff, 0x7fffffff)...), ": damaged at octet 24: a packet of 2147483647 octets\n"},
		"link type":         {pcapOf(le, 0xa1b2c3d4, 65535, 250, 0, []byte("x")), "1 packets of link type 250, which is not known here\n"},
		"cut gzip":          {[]byte("\x1f\x8b\x08\x00"), ": unexpected EOF\n"},
		"octet order":       {blockOf(le, blockSection, 7, 0), ": damaged at octet 0: a section of unknown octet order\n"},
		"cut section":       {sectionOf(le)[:10], ": damaged at octet 10: cut short\n"},
		"cut block":         {append(sectionOf(le), iface[:17]...), ": damaged at octet 45: cut short\n"},
		"huge block":        {append(sectionOf(le), cat(le, 6, 0x7ffffffc, 0)...), ": damaged at octet 28: a block of 2147483644 octets\n"},
		"block of 8 octets": {append(sectionOf(le), cat(le, 6, 8, 8, 0)...), ": damaged at octet 28: a block of 8 octets\n"},
		"short block":       {append(sectionOf(le), blockOf(le, blockEnhancedPacket, 0)...), ": damaged at octet 28: a block of 16 octets and type 6\n"},
		"interface":         {append(sectionOf(le), blockOf(le, blockSimplePacket, 1, 0)...), ": damaged at octet 28: a packet of interface 0 of 0\n"},
		"packet beyond its block": {
			append(append(sectionOf(le), iface...), blockOf(le, blockEnhancedPacket, 0, 0, 0, 9, 9, 0)...),
			": damaged at octet 48: a packet of 9 octets in a block that has room for 4\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(file, tt.file, 0o600))
			_, errOut, code := dump(t, file)
			assert.Equal(t, 1, code)
			assert.Contains(t, errOut, tt.want)
		})
	}
	t.Run("what comes before the damage is printed", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, good[:len(good)-1], 0o600))
		out, errOut, code := dump(t, file)
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "Map-Request probe")
		assert.Contains(t, errOut, "1 packets: 1 messages")
	})
	t.Run("no file", func(t *testing.T) {
		_, errOut, code := dump(t, "/no/such/file", t.TempDir())
		assert.Equal(t, 1, code)
		assert.Contains(t, errOut, "lispdump: /no/such/file: no such file or directory\n")
		assert.Contains(t, errOut, ": is a directory\n")
	})
}

func FuzzCapture(f *testing.F) {
	le, be := binary.LittleEndian, binary.BigEndian
	f.Add(pcapOf(le, 0xa1b2c3d4, 65535, 1, 5, []byte("packet")))
	f.Add(pcapOf(be, 0xa1b23c4d, 65535, 276, 5, make([]byte, 30)))
	f.Add(bytes.Join([][]byte{
		sectionOf(le),
		blockOf(le, blockInterface, uint16(1), uint16(0), 4, uint16(9), uint16(1), []byte{0xff, 0, 0, 0}),
		blockOf(le, blockSimplePacket, 9, []byte("packet")),
		blockOf(le, blockEnhancedPacket, 0, 1, 1, 6, 6, []byte("packet")),
		blockOf(le, blockPacketObsolete, uint16(0), uint16(0), 1, 1, 6, 6, []byte("packet")),
	}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := openCapture(bytes.NewReader(b))
		if err != nil {
			return
		}
		p := printer{options: options{json: true, data: true}, out: io.Discard}
		for {
			packet, err := c.next()
			if err != nil {
				return
			}
			if len(packet.data) > maxBlock {
				t.Fatalf("%d octets", len(packet.data))
			}
			if err := p.packet(packet); err != nil {
				t.Fatal(err)
			}
		}
	})
}
