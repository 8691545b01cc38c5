package encap

import (
	"bytes"
	"encoding/binary"
)

// lastFlow remembers, within one batch, what was decided about the previous
// packet: a batch is mostly the segments of one large TCP or UDP send. Nothing
// that it skips can change the outcome: addresses and ports are the same, and so
// is the published map-cache of the batch.
type lastFlow struct {
	packet []byte    // the previous packet; nil if it is not to be followed
	out    *Outgoing // what a packet of the flow became, in a batch that waits for flush
	local  int       // the locator it left from
	room   int       // the largest inner packet that may follow
}

// matches reports whether b is of the same flow, of the same overlay and DSCP.
func (l *lastFlow) matches(o *overlay, b []byte) bool {
	return l.packet != nil && l.out.overlay == o && sameFlow(l.packet, b)
}

// sameFlow reports whether two packets, of which the first is one that
// followable accepts, have the same addresses, protocol, ports and DSCP.
func sameFlow(a, b []byte) bool {
	if a[0]>>4 == 4 {
		return len(b) >= ipv4HeaderLen+4 && b[0] == 0x45 && a[9] == b[9] && (a[1]^b[1])>>2 == 0 &&
			binary.BigEndian.Uint16(b[6:])&^flagDF == 0 && bytes.Equal(a[12:24], b[12:24])
	}
	return len(b) >= ipv6HeaderLen+4 && a[0] == b[0] && (a[1]^b[1])>>6 == 0 && a[6] == b[6] && bytes.Equal(a[8:44], b[8:44])
}

// followable reports whether a packet's ports are where sameFlow looks for them.
// Packets to a data port are looked into one by one, for data headers.
func followable(b []byte, p *inner) bool {
	if p.proto != protoTCP && p.proto != protoUDP {
		return false
	}
	if p.v6 {
		if len(b) < ipv6HeaderLen+4 {
			return false
		}
	} else if p.headerLen != ipv4HeaderLen || len(b) < ipv4HeaderLen+4 || p.fragment&^flagDF != 0 {
		return false
	}
	return p.proto != protoUDP || !carriesData(binary.BigEndian.Uint16(b[p.headerLen+2:]))
}
