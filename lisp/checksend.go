package lisp

import (
	"fmt"
	"slices"
)

// CheckSend reports the first thing in a message that RFC 9301 and its family
// forbid a sender, but that encoding lets through because received messages
// must encode to the octets they came from: reserved bits, the p bit outside
// of a probe's answer, an action beside locators, locators out of order, and the like.
// A message that passes is not meaningful for that alone. The error wraps
// ErrMalformed. It is for tests and for those who build unusual messages.
func CheckSend(m Message) error {
	name := m.Type().String()
	bad := func(field, format string, args ...any) error { return encodeError(name, field, format, args...) }
	switch m := m.(type) {
	case *MapRequest:
		switch {
		case m.Reserved != 0:
			return bad("Reserved", "%#x", m.Reserved)
		case len(m.Records) != 1:
			return bad("Record Count", "%d, a sender asks for one EID-Prefix", len(m.Records))
		case m.Records[0].Reserved != 0:
			return bad("Reserved", "%#x of the record", m.Records[0].Reserved)
		case m.MapData != nil:
			return checkRecord(name, m.MapData)
		}
	case *MapReply:
		if m.Reserved != 0 {
			return bad("Reserved", "%#x", m.Reserved)
		}
		return checkReply(m)
	case *MapRegister:
		if m.Reserved != 0 || m.RTR || m.MobileNode {
			return bad("Reserved", "bits are set")
		}
		return checkRecords(name, m.Records)
	case *MapNotify:
		if m.Reserved != 0 {
			return bad("Reserved", "%#x", m.Reserved)
		}
		return checkRecords(name, m.Records)
	case *MapNotifyAck:
		if m.Reserved != 0 {
			return bad("Reserved", "%#x", m.Reserved)
		}
		return checkRecords(name, m.Records)
	case *MapReferral:
		if m.Reserved != 0 {
			return bad("Reserved", "%#x", m.Reserved)
		}
		return checkReferrals(m)
	case *InfoRequest:
		if m.Reserved != 0 || m.EIDReserved != 0 {
			return bad("Reserved", "bits are set")
		}
		if !m.Host.IsZero() {
			return bad("AFI", "%s in a request", m.Host)
		}
	case *InfoReply:
		if m.Reserved != 0 || m.EIDReserved != 0 {
			return bad("Reserved", "bits are set")
		}
		_, err := m.Traversal()
		return err
	case *EncapsulatedControl:
		if m.Reserved != 0 {
			return bad("Reserved", "%#x", m.Reserved)
		}
		return checkInner(m)
	}
	return nil
}

func checkReply(m *MapReply) error {
	for i := range m.Records {
		r := &m.Records[i]
		if m.Probe && len(r.Locators) > 0 {
			c := *r
			c.Locators = slices.Clone(r.Locators)
			probed := 0
			for j := range c.Locators {
				if c.Locators[j].Probed {
					c.Locators[j].Probed = false
					probed++
				}
			}
			if probed > 1 {
				return encodeError(mapReply, "p", "set for %d locators", probed)
			}
			r = &c
		}
		if err := checkRecord(mapReply, r); err != nil {
			return err
		}
	}
	return nil
}

func checkRecords(name string, rs []EIDRecord) error {
	for i := range rs {
		if err := checkRecord(name, &rs[i]); err != nil {
			return err
		}
		if rs[i].Action != 0 {
			return encodeError(name, "ACT", "%s outside of a negative Map-Reply", rs[i].Action)
		}
	}
	return nil
}

func checkRecord(name string, r *EIDRecord) error {
	if r.Reserved != 0 || r.Rsvd != 0 {
		return encodeError(name, "Reserved", "bits are set for %s", r)
	}
	if r.Action != 0 && len(r.Locators) > 0 {
		return encodeError(name, "ACT", "%s beside locators", r.Action)
	}
	return checkLocators(name, r.Locators)
}

func checkLocators(name string, ls []RLOCRecord) error {
	for i := range ls {
		switch {
		case ls[i].Unused != 0:
			return encodeError(name, "Unused Flags", "%#x for %s", ls[i].Unused, ls[i].RLOC)
		case ls[i].Probed:
			return encodeError(name, "p", "set for %s", ls[i].RLOC)
		case i > 0 && ls[i-1].RLOC.Compare(ls[i].RLOC) > 0:
			return encodeError(name, "Locator", "%s after %s", ls[i].RLOC, ls[i-1].RLOC)
		}
	}
	return nil
}

func checkReferrals(m *MapReferral) error {
	for i := range m.Records {
		r := &m.Records[i]
		if r.Reserved != 0 {
			return encodeError(mapReferral, "Reserved", "bits are set for %s", r)
		}
		for j := range r.Signatures {
			if s := &r.Signatures[j]; s.Reserved != 0 || s.Algorithm == SignatureRSASHA1 {
				return encodeError(mapReferral, "Signature Section", "reserved bits or a deprecated algorithm")
			}
		}
		if err := checkLocators(mapReferral, r.Referrals); err != nil {
			return err
		}
	}
	return nil
}

func checkInner(m *EncapsulatedControl) error {
	in, err := m.Inner()
	if err != nil {
		return err
	}
	// Inner accepts a missing UDP checksum over IPv4.
	if u := m.Packet[m.Packet[0]&0x0f*4:]; in.Source.Addr().Is4() && u[6] == 0 && u[7] == 0 {
		return encodeError(ecm, "UDP Checksum", "zero")
	}
	inner, err := Parse(in.Payload)
	if err != nil {
		return fmt.Errorf("lisp: %s: %w", ecm, err)
	}
	if r, ok := inner.(*MapRequest); ok && r.Probe {
		return encodeError(ecm, "P", "an RLOC-probe is not encapsulated")
	}
	return nil
}
