package encap

import "encoding/binary"

const (
	minIPv6MTU = 1280 // RFC 8200 §5
	minIPv4MTU = 68   // RFC 791 §3.2
)

// fragments is scratch space for one packet's fragments.
type fragments struct {
	slots [][]byte // each with Headroom in front
	sizes []int
}

// split cuts the IPv4 packet b into the fewest fragments of at most mtu octets,
// of nearly equal size (RFC 9300 §7.1), and puts them into the slots. It reports
// false when the packet cannot be cut: DF is set, mtu leaves no room for eight
// octets of payload, or it is a fragment that reaches beyond the largest packet.
func (f *fragments) split(b []byte, p *inner, mtu int) bool {
	f.sizes = f.sizes[:0]
	if p.dontFragment() {
		return false
	}
	b = b[:p.length]
	payload := b[p.headerLen:]
	room := (mtu - p.headerLen) &^ 7
	offset := p.fragment & 0x1fff // in units of 8 octets
	if room < 8 || int(offset)*8+len(payload) > 0xffff {
		return false
	}
	n := (len(payload) + room - 1) / room
	size := ((len(payload)+n-1)/n + 7) &^ 7

	for i, at := 0, 0; at < len(payload); i++ {
		if i == len(f.slots) {
			f.slots = append(f.slots, nil)
		}
		if len(f.slots[i]) < Headroom+mtu {
			f.slots[i] = make([]byte, Headroom+mtu)
		}
		end := min(at+size, len(payload))
		out := f.slots[i][Headroom:]
		hl := p.headerLen
		copy(out, b[:hl])
		if i > 0 {
			hl = copiedOptions(out[:hl])
		}
		frag := offset + uint16(at/8)
		// The last fragment keeps the MF flag of what was itself a fragment.
		if end < len(payload) || p.fragment&flagMF != 0 {
			frag |= flagMF
		}
		total := hl + copy(out[hl:], payload[at:end])
		out[0] = 0x40 | byte(hl/4)
		binary.BigEndian.PutUint16(out[2:], uint16(total))
		binary.BigEndian.PutUint16(out[6:], frag)
		out[10], out[11] = 0, 0
		binary.BigEndian.PutUint16(out[10:], checksum(out[:hl]))
		f.sizes = append(f.sizes, total)
		at = end
	}
	return true
}

// copiedOptions removes from the IPv4 header h the options that only the first
// fragment carries (RFC 791 §3.1, copied flag) and returns the new length.
func copiedOptions(h []byte) int {
	to := ipv4HeaderLen
	for at := ipv4HeaderLen; at < len(h); {
		switch h[at] {
		case 0: // end of list
			at = len(h)
			continue
		case 1: // padding
			at++
			continue
		}
		if at+1 >= len(h) || h[at+1] < 2 || at+int(h[at+1]) > len(h) {
			break // unparsable: no option is better than a wrong one
		}
		n := int(h[at+1])
		if h[at]&0x80 != 0 {
			copy(h[to:], h[at:at+n])
			to += n
		}
		at += n
	}
	for to%4 != 0 {
		h[to] = 0
		to++
	}
	return to
}
