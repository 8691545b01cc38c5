package lisp

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// rawTextPrefix begins an address that is written as octets.
const rawTextPrefix = "afi-"

// MarshalText returns a text that UnmarshalText turns into the same address, so
// that a configuration, JSON and a log agree. It is what String prints, with
// these exceptions: no address is the empty text; an IID mask-len other than 32
// is added, [7/0]192.0.2.1; and what String does not print in full, such as a
// MAC address of AFI 16389, keys, or octets that RFC 8060 reserves, is written
// as afi-<number>:<hexadecimal octets behind the AFI>.
func (a Address) MarshalText() ([]byte, error) {
	switch {
	case a.afi == AFINone:
		return []byte{}, nil
	case a.ip.IsValid() && a.afi == AFILCAF && a.iidMask != instanceIDMask:
		return fmt.Appendf(nil, "[%d/%d]%s", a.iid, a.iidMask, a.ip), nil
	case a.ip.IsValid(), a.afi == AFIMAC, a.afi == AFIDistinguishedName:
		return []byte(a.String()), nil
	}
	s := a.String()
	if b, err := ParseAddress(s); err == nil && b == a {
		return []byte(s), nil
	}
	return fmt.Appendf(nil, "%s%d:%x", rawTextPrefix, a.afi, a.raw), nil
}

// UnmarshalText reads what MarshalText writes, and "none" for no address.
func (a *Address) UnmarshalText(text []byte) error {
	d, err := ParseAddress(string(text))
	if err == nil {
		*a = d
	}
	return err
}

// ParseAddress reads an address as MarshalText writes it, or "none":
//
//	192.0.2.1    2001:db8::1    02:00:00:00:00:01    "a name"
//	[7]192.0.2.1                        an address in instance 7
//	[256/8]                             a range of instances
//	afi-list(192.0.2.1, "a name")       several addresses
//	elp(192.0.2.1 strict > 192.0.2.2 lookup probe)
//	rle(192.0.2.1 level 0, 192.0.2.2 level 128)
//	as64500(192.0.2.1)
//	key-value(192.0.2.1: "a name")
//	192.0.2.0/24>198.51.100.0/24        source and destination
//	[7](192.0.2.1/32, 239.1.1.1/32)     source and multicast group
//	afi-6:020000000001                  octets of any address family
func ParseAddress(s string) (Address, error) {
	if s == "" {
		return Address{}, nil
	}
	a, err := parseAddress(s, 0)
	if err != nil {
		return Address{}, fmt.Errorf("lisp: address %q: %w", s, err)
	}
	return a, nil
}

func badText(what string) error { return fmt.Errorf("%s: %w", what, ErrMalformed) }

func parseAddress(s string, depth int) (Address, error) {
	switch {
	case depth > maxLCAFDepth:
		return Address{}, badText("nested too deep")
	case s == "none":
		return Address{}, nil
	case strings.HasPrefix(s, `"`):
		name, err := strconv.Unquote(s)
		if err != nil || strings.IndexByte(name, 0) >= 0 {
			return Address{}, badText("name")
		}
		return Address{afi: AFIDistinguishedName, raw: name + "\x00"}, nil
	case strings.HasPrefix(s, "["):
		return parseInstance(s, depth)
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return AddressFrom(ip), nil
	}
	if octets, ok := strings.CutPrefix(s, rawTextPrefix); ok && strings.Contains(octets, ":") && !strings.Contains(octets, "(") {
		return parseRaw(octets)
	}
	if open := strings.IndexByte(s, '('); open > 0 && strings.HasSuffix(s, ")") {
		return parseLCAF(s[:open], s[open+1:len(s)-1], depth)
	}
	if source, dest, ok := strings.Cut(s, ">"); ok {
		return parseSourceDest(source, dest, depth)
	}
	if mac, err := hex.DecodeString(strings.ReplaceAll(s, ":", "")); err == nil && len(mac) == 6 {
		if a := (Address{afi: AFIMAC, raw: string(mac)}); a.String() == strings.ToLower(s) {
			return a, nil
		}
	}
	return Address{}, badText("neither IP address nor another form")
}

// parseRaw reads <number>:<hexadecimal octets>.
func parseRaw(s string) (Address, error) {
	number, octets, _ := strings.Cut(s, ":")
	afi, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return Address{}, badText("address family")
	}
	raw, err := hex.DecodeString(octets)
	if err != nil {
		return Address{}, badText("octets")
	}
	var a Address
	err = a.UnmarshalBinary(append(binary.BigEndian.AppendUint16(nil, uint16(afi)), raw...))
	return a, err
}

// parseInstance reads [iid]address, [iid/mask-len]address, [iid/mask-len] and
// [iid](source/len, group/len).
func parseInstance(s string, depth int) (Address, error) {
	instance, inner, ok := strings.Cut(s[1:], "]")
	if !ok {
		return Address{}, badText("no ]")
	}
	number, mask, hasMask := strings.Cut(instance, "/")
	iid, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return Address{}, badText("Instance ID")
	}
	maskLen := uint64(instanceIDMask)
	if hasMask {
		if maskLen, err = strconv.ParseUint(mask, 10, 8); err != nil {
			return Address{}, badText("IID mask-len")
		}
	}
	if pair, ok := strings.CutPrefix(inner, "("); ok && !hasMask {
		return parseMulticast(uint32(iid), strings.TrimSuffix(pair, ")"), depth)
	}
	l := InstanceID{MaskLen: uint8(maskLen), IID: uint32(iid)}
	if inner != "" {
		if l.Address, err = parseAddress(inner, depth+1); err != nil {
			return Address{}, err
		}
	} else if !hasMask {
		return Address{}, badText("no address")
	}
	return LCAFAddress(&l)
}

func parseMulticast(iid uint32, pair string, depth int) (Address, error) {
	l := MulticastInfo{IID: iid}
	source, group, ok := strings.Cut(pair, ", ")
	if !ok {
		return Address{}, badText("no group")
	}
	var err error
	if l.Source, l.SourceMaskLen, err = parsePrefix(source, depth); err != nil {
		return Address{}, err
	}
	if l.Group, l.GroupMaskLen, err = parsePrefix(group, depth); err != nil {
		return Address{}, err
	}
	return LCAFAddress(&l)
}

func parseSourceDest(source, dest string, depth int) (Address, error) {
	var l SourceDest
	var err error
	if l.Source, l.SourceMaskLen, err = parsePrefix(source, depth); err != nil {
		return Address{}, err
	}
	if l.Dest, l.DestMaskLen, err = parsePrefix(dest, depth); err != nil {
		return Address{}, err
	}
	return LCAFAddress(&l)
}

// parsePrefix reads <address>/<mask-len>.
func parsePrefix(s string, depth int) (Address, uint8, error) {
	slash := strings.LastIndexByte(s, '/')
	if slash < 0 {
		return Address{}, 0, badText("no mask-len")
	}
	maskLen, err := strconv.ParseUint(s[slash+1:], 10, 8)
	if err != nil {
		return Address{}, 0, badText("mask-len")
	}
	a, err := parseAddress(s[:slash], depth+1)
	return a, uint8(maskLen), err
}

// parseLCAF reads what stands in parentheses behind the name of an LCAF type.
func parseLCAF(name, body string, depth int) (Address, error) {
	switch name {
	case "afi-list":
		var l AFIList
		for _, s := range splitText(body, ", ") {
			a, err := parseAddress(s, depth+1)
			if err != nil {
				return Address{}, err
			}
			l.Addresses = append(l.Addresses, a)
		}
		return LCAFAddress(&l)
	case "elp":
		var l ExplicitPath
		for _, s := range splitText(body, " > ") {
			h, err := parseHop(s, depth)
			if err != nil {
				return Address{}, err
			}
			l.Hops = append(l.Hops, h)
		}
		return LCAFAddress(&l)
	case "rle":
		var l ReplicationList
		for _, s := range splitText(body, ", ") {
			e, err := parseEntry(s, depth)
			if err != nil {
				return Address{}, err
			}
			l.Entries = append(l.Entries, e)
		}
		return LCAFAddress(&l)
	case "key-value":
		pair := splitText(body, ": ")
		if len(pair) != 2 {
			return Address{}, badText("not a pair")
		}
		var l KeyValue
		var err error
		if l.Key, err = parseAddress(pair[0], depth+1); err != nil {
			return Address{}, err
		}
		if l.Value, err = parseAddress(pair[1], depth+1); err != nil {
			return Address{}, err
		}
		return LCAFAddress(&l)
	}
	if number, ok := strings.CutPrefix(name, "as"); ok {
		asn, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return Address{}, badText("AS number")
		}
		a, err := parseAddress(body, depth+1)
		if err != nil {
			return Address{}, err
		}
		return LCAFAddress(&ASNumber{uint32(asn), a})
	}
	return Address{}, badText("unknown form " + strconv.Quote(name))
}

// parseHop reads <address> [lookup] [probe] [strict].
func parseHop(s string, depth int) (ExplicitHop, error) {
	var h ExplicitHop
	words := splitText(s, " ")
	if len(words) == 0 {
		return h, badText("empty hop")
	}
	for _, word := range words[1:] {
		switch word {
		case "lookup":
			h.Lookup = true
		case "probe":
			h.Probe = true
		case "strict":
			h.Strict = true
		default:
			return h, badText("neither lookup, probe nor strict")
		}
	}
	var err error
	h.Address, err = parseAddress(words[0], depth+1)
	return h, err
}

// parseEntry reads <address> level <number> [<name>].
func parseEntry(s string, depth int) (ReplicationEntry, error) {
	var e ReplicationEntry
	words := splitText(s, " ")
	if len(words) < 3 || len(words) > 4 || words[1] != "level" {
		return e, badText("no level")
	}
	level, err := strconv.ParseUint(words[2], 10, 8)
	if err != nil {
		return e, badText("level")
	}
	e.Level = uint8(level)
	if len(words) == 4 {
		if e.Name, err = parseAddress(words[3], depth+1); err != nil {
			return e, err
		}
	}
	e.Address, err = parseAddress(words[0], depth+1)
	return e, err
}

// splitText splits at separators that are in no parentheses and no quotes.
func splitText(s, sep string) []string {
	var parts []string
	if s == "" {
		return nil
	}
	start, nested, quoted := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			nested++
		case c == ')':
			nested--
		case nested == 0 && strings.HasPrefix(s[i:], sep):
			parts = append(parts, s[start:i])
			i += len(sep) - 1
			start = i + 1
		}
	}
	return append(parts, s[start:])
}
