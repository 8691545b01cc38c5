package lisp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MulticastInfo is a multicast EID (S,G) in an instance (RFC 8060 §4.5). The
// mask-len of the record around it has no meaning then.
type MulticastInfo struct {
	IID                         uint32
	SourceMaskLen, GroupMaskLen uint8
	Source, Group               Address // Source AFI 0 is (*,G)
}

// MulticastEID returns the EID of the multicast entry (source, group) in instance
// iid, as a receiver site of signal-free multicast registers it and an ITR asks
// for it (RFC 8378 §5.1.2). A source that is not valid makes (*, group).
func MulticastEID(iid uint32, source, group netip.Addr) (Address, error) {
	l := MulticastInfo{IID: iid, Source: AddressFrom(source), Group: AddressFrom(group)}
	if source.IsValid() {
		l.SourceMaskLen = uint8(source.BitLen())
	}
	l.GroupMaskLen = uint8(group.BitLen())
	if !group.IsMulticast() || source.IsValid() && source.Is4() != group.Is4() {
		return Address{}, lcafError(&l, "Group Address", "%s for %s", group, source)
	}
	return LCAFAddress(&l)
}

// LCAFType implements LCAF.
func (*MulticastInfo) LCAFType() LCAFType { return LCAFMulticastInfo }

func (l *MulticastInfo) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.IID = r.uint32("Instance ID")
	l.SourceMaskLen, l.GroupMaskLen = r.maskLens("Source MaskLen")
	r.address("Source Address", &l.Source)
	r.address("Group Address", &l.Group)
	r.checkMask("Source MaskLen", 6, l.SourceMaskLen, l.Source)
	r.checkMask("Group MaskLen", 7, l.GroupMaskLen, l.Group)
	return r.err
}

func (l *MulticastInfo) appendBody(b []byte) ([]byte, error) {
	if err := checkMasks(l, l.SourceMaskLen, l.Source, l.GroupMaskLen, l.Group); err != nil {
		return b, err
	}
	b = binary.BigEndian.AppendUint32(b, l.IID)
	b = append(b, 0, 0, l.SourceMaskLen, l.GroupMaskLen)
	return appendAddresses(b, l.Source, l.Group)
}

func (l *MulticastInfo) text(depth int) string {
	return fmt.Sprintf("[%d](%s, %s)", l.IID, prefixText(l.Source, l.SourceMaskLen, depth), prefixText(l.Group, l.GroupMaskLen, depth))
}

// SourceDest is an EID for packets from one prefix to another (RFC 8060 §4.8).
// The mask-len of the record around it has no meaning then.
type SourceDest struct {
	SourceMaskLen, DestMaskLen uint8
	Source, Dest               Address
}

// LCAFType implements LCAF.
func (*SourceDest) LCAFType() LCAFType { return LCAFSourceDest }

func (l *SourceDest) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.SourceMaskLen, l.DestMaskLen = r.maskLens("Source-ML")
	r.address("Source-Prefix", &l.Source)
	r.address("Dest-Prefix", &l.Dest)
	r.checkMask("Source-ML", 2, l.SourceMaskLen, l.Source)
	r.checkMask("Dest-ML", 3, l.DestMaskLen, l.Dest)
	return r.err
}

func (l *SourceDest) appendBody(b []byte) ([]byte, error) {
	if err := checkMasks(l, l.SourceMaskLen, l.Source, l.DestMaskLen, l.Dest); err != nil {
		return b, err
	}
	b = append(b, 0, 0, l.SourceMaskLen, l.DestMaskLen)
	return appendAddresses(b, l.Source, l.Dest)
}

func (l *SourceDest) text(depth int) string {
	return fmt.Sprintf("%s>%s", prefixText(l.Source, l.SourceMaskLen, depth), prefixText(l.Dest, l.DestMaskLen, depth))
}

// maskLens reads 16 reserved bits and two mask lengths.
func (r *reader) maskLens(field string) (uint8, uint8) {
	b := r.take(field, 4)
	if b == nil {
		return 0, 0
	}
	return b[2], b[3]
}

func checkMasks(l LCAF, sourceLen uint8, source Address, destLen uint8, dest Address) error {
	if int(sourceLen) > source.maskBits() || int(destLen) > dest.maskBits() {
		return lcafError(l, "mask-len", "%d for %s, %d for %s", sourceLen, source, destLen, dest)
	}
	return nil
}

// KeyValue is a pair of addresses (RFC 8060 §5.5).
type KeyValue struct {
	Key, Value Address
}

// LCAFType implements LCAF.
func (*KeyValue) LCAFType() LCAFType { return LCAFKeyValue }

func (l *KeyValue) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	r.address("Key", &l.Key)
	r.address("Value", &l.Value)
	return r.err
}

func (l *KeyValue) appendBody(b []byte) ([]byte, error) { return appendAddresses(b, l.Key, l.Value) }

func (l *KeyValue) text(depth int) string {
	return fmt.Sprintf("key-value(%s: %s)", l.Key.text(depth), l.Value.text(depth))
}
