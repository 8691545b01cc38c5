package mapcache

import (
	"fmt"
	"net/netip"

	"github.com/xtrkit/xtrkit/lisp"
)

// MAC is an Ethernet address as an EID, in an overlay of Ethernet frames (RFC 8060
// §4.10.2). The zero MAC is none. A net.HardwareAddr of 6 octets converts to it.
type MAC [6]byte

// String prints the address as 02:00:00:00:00:01.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText returns what String gives.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads six octets in hexadecimal, with colons between. It fails with
// ErrInvalid for anything else.
func (m *MAC) UnmarshalText(b []byte) error {
	a, err := lisp.ParseAddress(string(b))
	mac, ok := macOf(a)
	if err != nil || !ok {
		return fmt.Errorf("mapcache: %w: no MAC address %q", ErrInvalid, b)
	}
	*m = mac
	return nil
}

// MACKey returns the Key of a MAC EID.
func MACKey(iid uint32, m MAC) Key { return Key{IID: iid, MAC: m} }

// macBits is the mask-len of a MAC EID in a record: all of it.
const macBits = 48

// RecordKey returns the Key of an EID as a message carries it, with its mask-len:
// plain or in an Instance-ID LCAF, IPv4, IPv6, or a MAC of AFI 6 or 16389, whose
// mask-len does not count, since it is matched exactly. It reports false for
// any other address, a mask-len out of range, and an Instance ID of more than 24 bits.
func RecordKey(eid lisp.Address, maskLen uint8) (Key, bool) {
	if iid, ip, ok := eid.EID(); ok {
		if int(maskLen) > ip.BitLen() || iid > maxIID {
			return Key{}, false
		}
		return MakeKey(iid, netip.PrefixFrom(ip, int(maskLen))), true
	}
	iid := uint32(0)
	if l, err := eid.LCAF(); err == nil {
		in, ok := l.(*lisp.InstanceID)
		if !ok || in.IID > maxIID {
			return Key{}, false
		}
		iid, eid = in.IID, in.Address
	}
	m, ok := macOf(eid)
	return MACKey(iid, m), ok
}

// EID returns the EID and its mask-len for a message: the reverse of [RecordKey]. A
// MAC is written with AFI 6 and mask-len 48. It is AFI 0 if the Key names nothing.
func (k Key) EID() (lisp.Address, uint8) {
	if !k.isMAC() {
		return lisp.EIDAddress(k.IID, k.Prefix.Addr()), uint8(max(k.Prefix.Bits(), 0))
	}
	var a lisp.Address
	// Neither can fail: the address is complete, and an LCAF around it is short.
	_ = a.UnmarshalBinary(append([]byte{0, byte(lisp.AFIMAC)}, k.MAC[:]...))
	if k.IID != 0 {
		a, _ = lisp.LCAFAddress(&lisp.InstanceID{MaskLen: 32, IID: k.IID, Address: a})
	}
	return a, macBits
}

// macOf returns the octets of a plain MAC address other than the zero one.
func macOf(a lisp.Address) (m MAC, ok bool) {
	if afi := a.AFI(); afi != lisp.AFIMAC && afi != lisp.AFIMAC48 {
		return MAC{}, false
	}
	b, err := a.AppendBinary(nil)
	if err != nil || len(b) != 2+len(m) {
		return MAC{}, false
	}
	m = MAC(b[2:])
	return m, m != MAC{}
}

// macAddr is where a MAC stands in the trie of all MACs: Instance ID, then MAC. All
// prefixes of that trie have macTrieBits, so the longest match is the exact one.
func macAddr(iid uint32, m MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{byte(iid >> 16), byte(iid >> 8), byte(iid), m[0], m[1], m[2], m[3], m[4], m[5]})
}

const macTrieBits = 24 + macBits

// ForwardMAC is Forward for a frame to the MAC address dst, matched exactly. The
// hash is the flow hash of the IP packet in the frame, or for other frames any
// number that is the same for all frames of a flow.
func (v *View) ForwardMAC(iid uint32, dst MAC, hash uint32) (d Decision) {
	if iid > maxIID {
		return Decision{}
	}
	if s, ok := v.macs.Lookup(macAddr(iid, dst)); ok {
		v.complete(&d, v.choose(s, hash))
	}
	return d
}
