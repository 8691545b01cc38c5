package natt

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/xtrkit/xtrkit/lisp"
)

// answerName answers an Info-Request of lispers.net: the host name instead of an
// EID-Prefix, nothing authenticated, and no Map-Server address.
func (s *Server) answerName(b []byte, m *lisp.InfoRequest, from netip.AddrPort, name string) ([]byte, InfoAnswer) {
	a := InfoAnswer{Host: name}
	if !s.cfg.LispersNet {
		a.Reason = ServerVariant
		return b, a
	}
	n := s.traversal(netip.AddrPort{}, from, nil)
	n.MSPort, n.PrivateETR = 0, m.Host
	a.RTRs = len(n.RTRs)
	if len(n.RTRs) == 0 {
		n.RTRs = []lisp.Address{{}}
	}
	reply := lisp.InfoReply{Nonce: m.Nonce}
	var err error
	if reply.NAT, err = lisp.LCAFAddress(n); err != nil {
		a.Reason, a.Err = ServerMalformed, err
		return b, a
	}
	start := len(b)
	out, err := reply.AppendBinary(b)
	if err != nil {
		a.Reason, a.Err = ServerMalformed, err
		return b, a
	}
	// lispers.net always writes the length of one IPv4 RTR and no name.
	const lengthAt, always = 4 + 8 + 4 + 4 + 4 + 6, 16
	binary.BigEndian.PutUint16(out[start+lengthAt:], always)
	return out, a
}

// PriorityRTR is the unicast priority that lispers.net gives to the RTRs of a node
// behind a NAT.
const PriorityRTR = 254

// PartialLocators are the locators of a mapping that lispers.net tells to asker, by
// the source address of the Encapsulated Control Message: an RTR of the node gets
// those that are no RTRs, anybody else the RTRs, and what it might reach without
// them. A mapping without an RTR is told whole. The result may share ls.
func PartialLocators(ls []lisp.RLOCRecord, asker netip.Addr) []lisp.RLOCRecord {
	isRTR := func(l *lisp.RLOCRecord) bool { return l.Priority == PriorityRTR }
	if !slices.ContainsFunc(ls, func(l lisp.RLOCRecord) bool { return isRTR(&l) }) {
		return ls
	}
	byRTR := slices.ContainsFunc(ls, func(l lisp.RLOCRecord) bool {
		a, _, ok := NamedLocator(l.RLOC)
		return ok && isRTR(&l) && a == asker.Unmap()
	})
	var out []lisp.RLOCRecord
	for _, l := range ls {
		a, _, ok := NamedLocator(l.RLOC)
		switch {
		case byRTR && !isRTR(&l), !byRTR && isRTR(&l):
			out = append(out, l)
		case !byRTR && ok && (a.Is6() || a.IsPrivate()):
			out = append(out, l)
		}
	}
	return out
}

// NamedLocator takes a locator of lispers.net apart: an address, or an AFI-List
// LCAF of an address and a name. An address alone has no name.
func NamedLocator(a lisp.Address) (ip netip.Addr, name string, ok bool) {
	if ip, ok = a.IP(); ok {
		return ip.Unmap(), "", true
	}
	l, err := a.LCAF()
	if err != nil {
		return netip.Addr{}, "", false
	}
	list, isList := l.(*lisp.AFIList)
	if !isList {
		return netip.Addr{}, "", false
	}
	for _, e := range list.Addresses {
		if p, plain := e.IP(); plain && !ip.IsValid() {
			ip = p.Unmap()
		}
		if n, named := hostName(e); named && name == "" {
			name = n
		}
	}
	return ip, name, ip.IsValid()
}
