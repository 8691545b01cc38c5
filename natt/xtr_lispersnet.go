package natt

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// lispersNet is what lispers.net 0.607 does. Everything leaves from one port, which
// is our data port, since what an RTR learns from an Info-Request there is where it
// sends data to. RTRs never answer; the Map-Server answers Map-Registers directly.
type lispersNet struct{}

const (
	punchInterval    = 15 * time.Second // of Info-Requests: LISP_INFO_INTERVAL
	lispersNetPeriod = 60 * time.Second // of Map-Registers
	rtrPriority      = 254
)

func (lispersNet) infoPort(*XTR) uint16 { return lisp.DataPort }

func (lispersNet) chooses() bool { return false }

func (lispersNet) period(x *XTR) time.Duration { return max(lispersNetPeriod, x.keepAlive) }

// handle takes control messages that come to the data port without a data header,
// from a Map-Server's control port.
func (lispersNet) handle(x *XTR, now time.Time, d lisp.Datagram) bool {
	if d.Local.Port() != lisp.DataPort {
		return false
	}
	switch lisp.TypeOf(d.Bytes) {
	case lisp.TypeInfo:
		return x.handleInfoReply(now, d)
	case lisp.TypeMapNotify:
		from := netip.AddrPortFrom(d.Remote.Addr().Unmap(), d.Remote.Port())
		var m lisp.MapNotify
		if m.DecodeFromBytes(d.Bytes) != nil {
			return false
		}
		s, ok := x.sent[m.Nonce]
		if !ok || s.server != from {
			x.drop(DropNonce, d.Remote, m.Nonce.String())
			return false
		}
		return x.handleMapNotify(now, s.route.RTR, s.server, d.Bytes)
	default:
		return false
	}
}

// infoRequest has neither EID-Prefix nor authentication. Its nonce is in host byte
// order with the peer, which is no matter: it is echoed.
func (lispersNet) infoRequest(x *XTR, _ question, n lisp.Nonce) ([]byte, error) {
	m := lisp.InfoRequest{Nonce: n, Host: hostAddress(x.cfg.HostName)}
	return m.AppendBinary(nil)
}

// asked opens the NAT for each RTR, and tells it where we are.
func (lispersNet) asked(x *XTR, _ time.Time) {
	for _, r := range x.rtrs {
		x.punch(r.addr)
	}
}

// punch sends an Info-Request as data of instance 0xFFFFFF, which is not answered.
func (x *XTR) punch(rtr netip.Addr) {
	m := lisp.InfoRequest{Nonce: lisp.Nonce(x.random()), Host: hostAddress(x.cfg.HostName)}
	b := binary.BigEndian.AppendUint64(nil, 0x08000000<<32|lisp.InstanceIDControl<<8)
	b, err := m.AppendBinary(b)
	if err != nil {
		x.stats.Dropped[DropEncode]++
		return
	}
	x.send(lisp.DataPort, netip.AddrPortFrom(rtr, lisp.DataPort), b)
}

// checkReply has nothing to go by but nonce and sender.
func (lispersNet) checkReply(*XTR, question, *lisp.InfoReply, []byte) (XTRDrop, error) {
	return DropAuthentication, nil
}

func (lispersNet) register(x *XTR, _ Route, reg Register) error {
	x.send(lisp.DataPort, reg.Server, reg.Message)
	return nil
}

// hostAddress is a name as AFI 17 has it.
func hostAddress(name string) (a lisp.Address) {
	b := append([]byte{0, byte(lisp.AFIDistinguishedName)}, name...)
	_ = a.UnmarshalBinary(append(b, 0)) // cannot fail: withDefaults has seen to the name
	return a
}

// LispersNetRLOCs are the locators of a record by r with LispersNet: the translated
// address with the name that RTRs know us by, and the RTRs with the priority that
// a Map-Server takes for one to be given to all but RTRs.
func (r *Route) LispersNetRLOCs(priority, weight uint8) []lisp.RLOCRecord {
	var out []lisp.RLOCRecord
	add := func(a netip.Addr, name string, priority, weight uint8) {
		list, err := lisp.LCAFAddress(&lisp.AFIList{Addresses: []lisp.Address{lisp.AddressFrom(a), hostAddress(name)}})
		if err == nil {
			out = append(out, lisp.RLOCRecord{Priority: priority, Weight: weight, MPriority: 255, Reachable: true, RLOC: list})
		}
	}
	add(r.Global.Addr(), fmt.Sprintf("%s@tp-%d", r.Name, r.Global.Port()), priority, weight)
	for _, a := range r.RTRs {
		add(a, "RTR", rtrPriority, 0)
	}
	return out
}
