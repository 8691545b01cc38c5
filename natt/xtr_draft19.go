package natt

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// draft19 is draft-ermagan-lisp-nat-traversal-19.
type draft19 struct{}

const dataHeaderLen = 8

func (draft19) handle(x *XTR, now time.Time, d lisp.Datagram) bool {
	if d.Local.Port() == lisp.DataPort {
		return x.handleData(now, d)
	}
	return lisp.TypeOf(d.Bytes) == lisp.TypeInfo && x.handleInfoReply(now, d)
}

func (draft19) infoPort(x *XTR) uint16 { return x.cfg.Port }

func (draft19) asked(*XTR, time.Time) {}

func (draft19) chooses() bool { return true }

func (draft19) period(x *XTR) time.Duration { return x.keepAlive }

func (draft19) infoRequest(x *XTR, q question, n lisp.Nonce) ([]byte, error) {
	m := lisp.InfoRequest{Nonce: n, MaskLen: uint8(q.eid.Bits()), EID: lisp.EIDAddress(q.iid, q.eid.Addr())}
	return x.cfg.Registrar.SignInfo(nil, q.server, &m)
}

func (draft19) checkReply(x *XTR, q question, m *lisp.InfoReply, b []byte) (XTRDrop, error) {
	if iid, eid, ok := m.Prefix(); !ok || iid != q.iid || eid.Masked() != q.eid.Masked() {
		return DropEID, fmt.Errorf("natt: %v asked for: %w", q.eid, lisp.ErrMalformed)
	}
	return DropAuthentication, x.cfg.Registrar.VerifyInfo(q.server, b)
}

func (draft19) register(x *XTR, r Route, reg Register) error {
	return x.encapsulate(r, reg, x.innerPort)
}

// encapsulate sends an Encapsulated Map-Register (draft §5.1.1): it leaves from the
// data port, so that the binding of the NAT is the one that data comes back by.
func (x *XTR) encapsulate(r Route, reg Register, innerPort uint16) error {
	packet, err := lisp.AppendInner(nil, lisp.Inner{
		Source: netip.AddrPortFrom(x.cfg.Local, innerPort), Destination: reg.Server, Payload: reg.Message,
	})
	if err != nil {
		return err
	}
	ecm := lisp.EncapsulatedControl{RTR: true, Packet: packet}
	b, err := ecm.AppendBinary(nil)
	if err != nil {
		return err
	}
	x.send(lisp.DataPort, netip.AddrPortFrom(r.RTR, lisp.ControlPort), b)
	return nil
}

// handleData takes what came for instance 0xFFFFFF: a Data-Map-Notify (draft §4.5).
func (x *XTR) handleData(now time.Time, d lisp.Datagram) bool {
	h, err := lisp.ParseDataHeader(d.Bytes)
	if err != nil {
		return false
	}
	if iid, ok := h.InstanceID(); !ok || iid != lisp.InstanceIDControl {
		return false
	}
	in, err := (&lisp.EncapsulatedControl{Packet: d.Bytes[dataHeaderLen:]}).Inner()
	if err != nil {
		x.drop(DropMalformed, d.Remote, err.Error())
		return false
	}
	if lisp.TypeOf(in.Payload) != lisp.TypeMapNotify {
		return false
	}
	return x.handleMapNotify(now, d.Remote.Addr().Unmap(), in.Source, in.Payload)
}
