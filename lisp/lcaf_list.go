package lisp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// AFIList is a list of addresses without order (RFC 8060 §4.10). A receiver uses
// those that it understands.
type AFIList struct {
	Addresses []Address
}

// LCAFType implements LCAF.
func (*AFIList) LCAFType() LCAFType { return LCAFAFIList }

func (l *AFIList) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	if l.Addresses = r.addresses("Address"); r.err == nil {
		return nil
	}
	if as, ok := addressesAroundJSON(b); ok {
		l.Addresses = as
		return nil
	}
	return r.err
}

// addressesAroundJSON reads a list in which the LCAF Length of JSON elements is
// wrong, as lispers.net writes it: their content says where they end.
func addressesAroundJSON(b []byte) ([]Address, bool) {
	r := reader{b: b}
	var s []Address
	found := false
	for r.err == nil && r.off < len(b) {
		var a Address
		if n := jsonLen(b[r.off:]); n > 0 {
			found = true
			fixed := append([]byte(nil), b[r.off:r.off+n]...)
			binary.BigEndian.PutUint16(fixed[6:], uint16(n-lcafHeaderLen))
			if a.UnmarshalBinary(fixed) != nil {
				return nil, false
			}
			r.off += n
		} else {
			r.address("Address", &a)
		}
		s = append(s, a)
	}
	return s, found && r.err == nil
}

// jsonLen returns how many octets the JSON LCAF at the start of b takes by its
// content, 0 if there is none.
func jsonLen(b []byte) int {
	const text = lcafHeaderLen + 2
	if len(b) < text || AFI(binary.BigEndian.Uint16(b)) != AFILCAF || LCAFType(b[4]) != LCAFJSON {
		return 0
	}
	r := reader{b: b, off: text}
	r.take("JSON", int(binary.BigEndian.Uint16(b[lcafHeaderLen:])))
	var a Address
	r.address("Optional Address", &a)
	if r.err != nil || r.off-lcafHeaderLen > 0xffff {
		return 0
	}
	return r.off
}

func (l *AFIList) appendBody(b []byte) ([]byte, error) { return appendAddresses(b, l.Addresses...) }

func (l *AFIList) text(depth int) string { return addressesString("afi-list", l.Addresses, depth) }

// addresses reads addresses until the end.
func (r *reader) addresses(field string) []Address {
	var s []Address
	for r.err == nil && r.off < len(r.b) {
		var a Address
		r.address(field, &a)
		if r.err == nil {
			s = append(s, a)
		}
	}
	return s
}

func appendAddresses(b []byte, s ...Address) ([]byte, error) {
	var err error
	for _, a := range s {
		if b, err = a.AppendBinary(b); err != nil {
			return b, err
		}
	}
	return b, nil
}

func addressesString(name string, as []Address, depth int) string {
	var s strings.Builder
	s.WriteString(name)
	for i, a := range as {
		s.WriteString(listSep(i, "("))
		s.WriteString(a.text(depth))
	}
	if len(as) == 0 {
		s.WriteByte('(')
	}
	s.WriteByte(')')
	return s.String()
}

// ExplicitPath is an Explicit Locator Path: the re-encapsulating hops in order
// (RFC 8060 §4.6).
type ExplicitPath struct {
	Hops []ExplicitHop
}

// ExplicitHop is one hop of an ExplicitPath.
type ExplicitHop struct {
	Lookup  bool // L: the address is an EID to look up
	Probe   bool // P: RLOC-probes may be sent to it
	Strict  bool // S: it must not be skipped
	Address Address
}

// LCAFType implements LCAF.
func (*ExplicitPath) LCAFType() LCAFType { return LCAFExplicitPath }

func (l *ExplicitPath) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.Hops = nil
	for r.err == nil && r.off < len(b) {
		var h ExplicitHop
		if f := r.take("Rsvd3", 2); f != nil {
			h.Lookup, h.Probe, h.Strict = f[1]&4 != 0, f[1]&2 != 0, f[1]&1 != 0
		}
		r.address("Reencap Hop", &h.Address)
		if r.err == nil {
			l.Hops = append(l.Hops, h)
		}
	}
	return r.err
}

func (l *ExplicitPath) appendBody(b []byte) ([]byte, error) {
	var err error
	for _, h := range l.Hops {
		b = binary.BigEndian.AppendUint16(b, uint16(bit(h.Lookup, 4)|bit(h.Probe, 2)|bit(h.Strict, 1)))
		if b, err = h.Address.AppendBinary(b); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (l *ExplicitPath) text(depth int) string {
	var s strings.Builder
	s.WriteString("elp(")
	for i, h := range l.Hops {
		if i > 0 {
			s.WriteString(" > ")
		}
		s.WriteString(h.Address.text(depth))
		flags(&s, []flag{{h.Lookup, "lookup"}, {h.Probe, "probe"}, {h.Strict, "strict"}})
	}
	s.WriteByte(')')
	return s.String()
}

// ReplicationList is a Replication List Entry: the locators to replicate a
// multicast packet to (RFC 8060 §4.9).
type ReplicationList struct {
	Entries []ReplicationEntry
}

// SignalFreeLevel is the level of all entries that a receiver site registers
// (RFC 8378 §5.1.2).
const SignalFreeLevel = 128

// ReplicationLocator returns the locator by which a receiver site of signal-free
// multicast registers where to replicate to: all entries are of level
// SignalFreeLevel (RFC 8378 §5.1.2).
func ReplicationLocator(rlocs ...netip.Addr) (Address, error) {
	var l ReplicationList
	for _, ip := range rlocs {
		l.Entries = append(l.Entries, ReplicationEntry{Level: SignalFreeLevel, Address: AddressFrom(ip)})
	}
	return LCAFAddress(&l)
}

// ReplicationEntry is one locator of a ReplicationList.
type ReplicationEntry struct {
	Level   uint8 // 0: replicated to by the ITR; n: by a replicator of level n-1
	Address Address
	Name    Address // AFI 0; lispers.net adds a name (AFI 17)
}

// LCAFType implements LCAF.
func (*ReplicationList) LCAFType() LCAFType { return LCAFReplicationList }

func (l *ReplicationList) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.Entries = nil
	for r.err == nil && r.off < len(b) {
		var e ReplicationEntry
		if f := r.take("Level Value", 4); f != nil {
			e.Level = f[3]
		}
		r.address("RTR/ETR", &e.Address)
		// Rsvd3 of the next entry is zero, the AFI of a name is not.
		if r.err == nil && len(b)-r.off >= 2 && AFI(binary.BigEndian.Uint16(b[r.off:])) == AFIDistinguishedName {
			r.address("name", &e.Name)
		}
		if r.err == nil {
			l.Entries = append(l.Entries, e)
		}
	}
	return r.err
}

func (l *ReplicationList) appendBody(b []byte) ([]byte, error) {
	for _, e := range l.Entries {
		b = append(b, 0, 0, 0, e.Level)
		var err error
		if b, err = e.Address.AppendBinary(b); err != nil {
			return b, err
		}
		switch e.Name.AFI() {
		case AFINone:
		case AFIDistinguishedName:
			if b, err = e.Name.AppendBinary(b); err != nil {
				return b, err
			}
		default:
			return b, lcafError(l, "name", "%s", e.Name)
		}
	}
	return b, nil
}

func (l *ReplicationList) text(depth int) string {
	var s strings.Builder
	s.WriteString("rle(")
	for i, e := range l.Entries {
		if i > 0 {
			s.WriteString(", ")
		}
		fmt.Fprintf(&s, "%s level %d", e.Address.text(depth), e.Level)
		if !e.Name.IsZero() {
			fmt.Fprintf(&s, " %s", e.Name.text(depth))
		}
	}
	s.WriteByte(')')
	return s.String()
}
