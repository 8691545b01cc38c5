package lisp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
)

// AFI is an address family number as IANA assigns them.
type AFI uint16

// Address families that LISP messages carry. An address of any other family
// has no known length, so that a message with one cannot be decoded.
const (
	AFINone              AFI = 0     // no address
	AFIIPv4              AFI = 1     // 4 octets
	AFIIPv6              AFI = 2     // 16 octets
	AFIMAC               AFI = 6     // 6 octets, IEEE 802 (RFC 8060 §4.10.2)
	AFIDistinguishedName AFI = 17    // octets up to and including a NUL
	AFILCAF              AFI = 16387 // LISP Canonical Address Format (RFC 8060)
	AFIMAC48             AFI = 16389 // 6 octets, 48-bit MAC
)

const (
	lcafHeaderLen  = 8  // AFI, Rsvd1, Flags, Type, Rsvd2, Length
	instanceIDMask = 32 // the IID mask-len that EIDAddress sends: one whole Instance ID
)

// Address is an AFI-encoded address as it stands in a message. It keeps
// everything: host bits, IPv4-mapped IPv6 addresses, reserved octets of an LCAF.
// It is an immutable value, comparable with ==, which is true exactly when the
// encodings are equal, and it does not alias the octets it was decoded from.
// The zero value is AFI 0, "no address".
type Address struct {
	ip      netip.Addr // valid: plain IPv4 or IPv6, or one inside an Instance-ID LCAF
	raw     string     // what follows the AFI when ip is not valid
	iid     uint32
	afi     AFI
	iidMask uint8
}

// AddressFrom returns the plain address of ip: AFI 1 or 2, or AFI 0 when ip is
// not valid. A zone has no place on the wire and is left out.
func AddressFrom(ip netip.Addr) Address {
	switch {
	case ip.Is4():
		return Address{afi: AFIIPv4, ip: ip}
	case ip.Is6():
		return Address{afi: AFIIPv6, ip: ip.WithZone("")}
	}
	return Address{}
}

// EIDAddress returns the address of ip within instance iid (24 bits reach the
// data plane, 32 fit the encoding): a plain address for instance 0, else an
// Instance-ID LCAF with IID mask-len 32.
func EIDAddress(iid uint32, ip netip.Addr) Address {
	a := AddressFrom(ip)
	if iid == 0 || !a.ip.IsValid() {
		return a
	}
	a.afi, a.iid, a.iidMask = AFILCAF, iid, instanceIDMask
	return a
}

// AFI returns the address family.
func (a Address) AFI() AFI { return a.afi }

// IsZero reports whether a is AFI 0, "no address".
func (a Address) IsZero() bool { return a == Address{} }

// IP returns the address of a plain IPv4 or IPv6 address, not of one inside an LCAF.
func (a Address) IP() (netip.Addr, bool) {
	return a.ip, a.ip.IsValid() && a.afi != AFILCAF
}

// EID returns the instance and the address of a plain IPv4 or IPv6 address
// (instance 0) or of an Instance-ID LCAF around one.
func (a Address) EID() (iid uint32, ip netip.Addr, ok bool) {
	if a.ip.IsValid() {
		return a.iid, a.ip, true
	}
	// An Instance-ID LCAF with reserved bits set or octets left over is kept
	// raw; those are to be ignored here.
	if a.afi != AFILCAF || len(a.raw) < 6+4 || LCAFType(a.raw[2]) != LCAFInstanceID {
		return 0, netip.Addr{}, false
	}
	var inner Address
	body := []byte(a.raw[6:min(len(a.raw), 6+4+2+16)])
	if _, err := inner.decode(body[4:]); err != nil {
		return 0, netip.Addr{}, false
	}
	ip, ok = inner.IP()
	if !ok {
		return 0, netip.Addr{}, false
	}
	return binary.BigEndian.Uint32(body), ip, true
}

// maskBits returns how many bits a mask-len over a may have.
func (a Address) maskBits() int {
	if a.ip.IsValid() {
		return a.ip.BitLen()
	}
	if _, ip, ok := a.EID(); ok {
		return ip.BitLen()
	}
	return 255 // not defined for the other forms
}

// prefix combines a with a mask-len; the host bits stay.
func (a Address) prefix(maskLen uint8) (iid uint32, p netip.Prefix, ok bool) {
	iid, ip, ok := a.EID()
	if !ok || int(maskLen) > ip.BitLen() {
		return 0, netip.Prefix{}, false
	}
	return iid, netip.PrefixFrom(ip, int(maskLen)), true
}

// decode reads an AFI and its address from the start of b and returns how many
// octets they take. b is not retained.
func (a *Address) decode(b []byte) (int, error) {
	if len(b) < 2 {
		return 0, ErrTruncated
	}
	afi := AFI(binary.BigEndian.Uint16(b))
	switch afi {
	case AFINone:
		*a = Address{}
		return 2, nil
	case AFIIPv4:
		if len(b) < 6 {
			return 0, ErrTruncated
		}
		*a = Address{afi: afi, ip: netip.AddrFrom4([4]byte(b[2:6]))}
		return 6, nil
	case AFIIPv6:
		if len(b) < 18 {
			return 0, ErrTruncated
		}
		*a = Address{afi: afi, ip: netip.AddrFrom16([16]byte(b[2:18]))}
		return 18, nil
	default:
	}
	n, err := addressLen(afi, b)
	if err != nil {
		return 0, err
	}
	if afi == AFILCAF && a.decodeInstanceID(b[:n]) {
		return n, nil
	}
	*a = Address{afi: afi, raw: string(b[2:n])}
	return n, nil
}

// addressLen returns the octets of the address at the start of b, which has at
// least two, with its AFI.
func addressLen(afi AFI, b []byte) (int, error) {
	n := 0
	switch afi {
	case AFIMAC, AFIMAC48:
		n = 2 + 6
	case AFIDistinguishedName:
		for n = 2; n < len(b) && b[n] != 0; n++ {
		}
		n++
	case AFILCAF:
		if len(b) < lcafHeaderLen {
			return 0, ErrTruncated
		}
		n = lcafHeaderLen + int(binary.BigEndian.Uint16(b[6:]))
	default:
		return 0, fmt.Errorf("address family %d: %w", afi, ErrUnsupported)
	}
	if n > len(b) {
		return 0, ErrTruncated
	}
	return n, nil
}

// decodeInstanceID takes the LCAF b if it is exactly what an Instance-ID LCAF
// around a plain address encodes to, so that equal encodings are equal values.
func (a *Address) decodeInstanceID(b []byte) bool {
	if len(b) < lcafHeaderLen+6 || b[2] != 0 || b[3] != 0 || LCAFType(b[4]) != LCAFInstanceID {
		return false
	}
	inner := b[lcafHeaderLen+4:]
	var ip netip.Addr
	switch afi := AFI(binary.BigEndian.Uint16(inner)); {
	case afi == AFIIPv4 && len(inner) == 6:
		ip = netip.AddrFrom4([4]byte(inner[2:6]))
	case afi == AFIIPv6 && len(inner) == 18:
		ip = netip.AddrFrom16([16]byte(inner[2:18]))
	default:
		return false
	}
	*a = Address{
		afi: AFILCAF, ip: ip, iidMask: b[5],
		iid: binary.BigEndian.Uint32(b[lcafHeaderLen:]),
	}
	return true
}

// AppendBinary appends the AFI and the address.
func (a Address) AppendBinary(b []byte) ([]byte, error) {
	if !a.ip.IsValid() {
		return append(binary.BigEndian.AppendUint16(b, uint16(a.afi)), a.raw...), nil
	}
	afi := AFIIPv6
	if a.ip.Is4() {
		afi = AFIIPv4
	}
	if a.afi == AFILCAF {
		b = binary.BigEndian.AppendUint16(b, uint16(AFILCAF))
		b = append(b, 0, 0, byte(LCAFInstanceID), a.iidMask)
		b = binary.BigEndian.AppendUint16(b, uint16(4+2+a.ip.BitLen()/8))
		b = binary.BigEndian.AppendUint32(b, a.iid)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(afi))
	if afi == AFIIPv4 {
		ip := a.ip.As4()
		return append(b, ip[:]...), nil
	}
	ip := a.ip.As16()
	return append(b, ip[:]...), nil
}

// MarshalBinary returns the AFI and the address.
func (a Address) MarshalBinary() ([]byte, error) { return a.AppendBinary(nil) }

// UnmarshalBinary decodes b, which must hold one address and nothing else.
func (a *Address) UnmarshalBinary(b []byte) error {
	r := reader{b: b, message: "address"}
	var d Address
	r.address("AFI", &d)
	if r.err == nil && r.off != len(b) {
		r.fail("end", r.off, ErrMalformed)
	}
	if r.err != nil {
		return r.err
	}
	*a = d
	return nil
}

// String prints the address as the field's tools do: 192.0.2.1, [7]2001:db8::1
// (instance 7), 02:00:00:00:00:01, "a-name", and an LCAF by its type, such as
// afi-list(192.0.2.1, 2001:db8::1). See MarshalText for what can be read back.
func (a Address) String() string { return a.text(0) }

// text is String inside depth LCAFs.
func (a Address) text(depth int) string {
	switch {
	case a.ip.IsValid() && a.afi == AFILCAF:
		return fmt.Sprintf("[%d]%s", a.iid, a.ip)
	case a.ip.IsValid():
		return a.ip.String()
	case a.afi == AFINone:
		return "none"
	case a.afi == AFIMAC || a.afi == AFIMAC48:
		return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", a.raw[0], a.raw[1], a.raw[2], a.raw[3], a.raw[4], a.raw[5])
	case a.afi == AFIDistinguishedName:
		return strconv.Quote(a.raw[:len(a.raw)-1])
	}
	if depth < maxLCAFDepth {
		if l, err := a.LCAF(); err == nil {
			return l.text(depth + 1)
		}
	}
	return fmt.Sprintf("%s(%x)", LCAFType(a.raw[2]), a.raw[6:])
}

// prefixString prints a and a mask-len as <address>/<mask-len>.
func prefixString(a Address, maskLen uint8) string { return prefixText(a, maskLen, 0) }

func prefixText(a Address, maskLen uint8, depth int) string {
	return fmt.Sprintf("%s/%d", a.text(depth), maskLen)
}
