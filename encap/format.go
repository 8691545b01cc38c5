package encap

import (
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// numFormats is the number of encapsulation formats of package mapcache.
const numFormats = 3

// dataHeaders returns what stands in front of the packets of an instance, by
// format and by whether the packet is IPv6.
//
// On the public Internet N, L, E and V stay 0 (RFC 9300 §4.1), and none of what
// they announce is in use. A LISP-GPE header is the strictest that any peer
// wants, which is the kernel's VXLAN-GPE device on port 4341: P and I set, I for
// instance 0 too, and every other bit 0. VXLAN-GPE proper has the same bits.
func dataHeaders(iid uint32) (h [numFormats][2]lisp.DataHeader) {
	for i, next := range []lisp.NextProtocol{lisp.NextIPv4, lisp.NextIPv6} {
		if iid != 0 {
			h[mapcache.FormatLISP][i] = lisp.DataHeader{}.WithInstanceID(iid)
		}
		gpe := lisp.DataHeader{}.WithInstanceID(iid).WithNextProtocol(next)
		h[mapcache.FormatGPE][i], h[mapcache.FormatVXLANGPE][i] = gpe, gpe
	}
	return h
}

// header returns the data header of packets of p's family in a format.
func (o *overlay) header(f mapcache.Format, p *inner) lisp.DataHeader {
	family := 0
	if p.v6 {
		family = 1
	}
	return o.headers[f][family]
}

// carriesData reports whether a UDP port is one of those that data packets are
// sent to.
func carriesData(port uint16) bool { return port == dataPort || port == lisp.VXLANGPEPort }

// payload returns what follows the header of an arriving packet; 0 is an IP
// packet of either version, behind a plain LISP header.
func payload(h lisp.DataHeader, f mapcache.Format) (lisp.NextProtocol, DropReason) {
	const versionVXLAN = 0x30
	next, ok := h.NextProtocol()
	switch {
	case f == mapcache.FormatVXLANGPE:
		v := lisp.VXLANGPEHeader(h)
		if _, tagged := v.VNI(); !tagged || h.Flags()&versionVXLAN != 0 {
			return 0, DropHeader
		}
		if v.OAM() {
			return 0, DropProtocol // for operation and maintenance, which nobody does here
		}
		next = v.NextProtocol()
	case h.KeyID() != 0:
		return 0, DropEncrypted
	case !ok:
		return 0, DropNone
	}
	// N, E and V mean nothing beside P (RFC 9305 §3). Nobody knows what an
	// unknown shim header changes about what follows it.
	if next == lisp.NextIPv4 || next == lisp.NextIPv6 || next == lisp.NextEthernet {
		return next, DropNone
	}
	return 0, DropProtocol
}
