package lisp

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// NATTraversal is what an Info-Reply says about a NAT (RFC 8060 §4.4).
type NATTraversal struct {
	MSPort     uint16    // UDP port of the Map-Server; lispers.net sends 0
	ETRPort    uint16    // UDP port of the xTR as the Map-Server sees it
	GlobalETR  Address   // address of the xTR as the Map-Server sees it
	MS         Address   // address of the Map-Server that the Info-Request was sent to
	PrivateETR Address   // AFI 0; lispers.net repeats the host name here (AFI 17)
	RTRs       []Address // until the end of the LCAF; none and one AFI 0 both mean no RTR
}

// LCAFType implements LCAF.
func (*NATTraversal) LCAFType() LCAFType { return LCAFNATTraversal }

func (l *NATTraversal) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	ports := r.uint32("UDP port")
	l.MSPort, l.ETRPort = uint16(ports>>16), uint16(ports)
	r.address("Global ETR RLOC Address", &l.GlobalETR)
	r.address("MS RLOC Address", &l.MS)
	r.address("Private ETR RLOC Address", &l.PrivateETR)
	l.RTRs = r.addresses("RTR RLOC Address")
	return r.err
}

func (l *NATTraversal) appendBody(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint16(b, l.MSPort)
	b = binary.BigEndian.AppendUint16(b, l.ETRPort)
	b, err := appendAddresses(b, l.GlobalETR, l.MS, l.PrivateETR)
	if err != nil {
		return b, err
	}
	return appendAddresses(b, l.RTRs...)
}

func (l *NATTraversal) text(depth int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "nat-traversal(global %s port %d, ms %s port %d, private %s",
		l.GlobalETR.text(depth), l.ETRPort, l.MS.text(depth), l.MSPort, l.PrivateETR.text(depth))
	for i, a := range l.RTRs {
		s.WriteString(listSep(i, ", rtrs "))
		s.WriteString(a.text(depth))
	}
	s.WriteByte(')')
	return s.String()
}
