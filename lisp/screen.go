package lisp

import (
	"errors"
	"fmt"
	"slices"
)

// errUnrecognized is for an address that is to be ignored, errUnknownVendor for
// one because of which the whole message is to be dropped.
var (
	errUnrecognized  = fmt.Errorf("unrecognized LCAF: %w", ErrUnsupported)
	errUnknownVendor = fmt.Errorf("vendor-specific LCAF of an unknown vendor: %w", ErrUnsupported)
)

// Screen applies the rules of RFC 9306 to a received message, which decoding
// does not: it takes locators and ITR-RLOCs of unrecognized LCAF types out of the message,
// and fails with ErrUnsupported if the message has to be dropped. That is when
// an EID is made only of unrecognized LCAF types, or any address is a
// Vendor-Specific LCAF whose OUI (24 bits) is not among known.
//
// A screened message no longer encodes to the octets that it came from.
func Screen(m Message, known ...uint32) error {
	s := screen{known}
	switch m := m.(type) {
	case *MapRequest:
		return s.mapRequest(m)
	case *MapReply:
		return s.records(m.Records)
	case *MapRegister:
		return s.records(m.Records)
	case *MapNotify:
		return s.records(m.Records)
	case *MapNotifyAck:
		return s.records(m.Records)
	case *MapReferral:
		for i := range m.Records {
			r := &m.Records[i]
			if err := s.eid(r.EID); err != nil {
				return err
			}
			var err error
			if r.Referrals, err = s.locators(r.Referrals); err != nil {
				return err
			}
		}
	case *InfoRequest:
		return s.eid(m.EID)
	case *InfoReply:
		if err := s.eid(m.EID); err != nil {
			return err
		}
		return s.recognized(m.NAT, 0)
	}
	return nil
}

type screen struct{ known []uint32 }

func (s screen) mapRequest(m *MapRequest) error {
	// A Source EID of a kind that is not understood says nothing; only a vendor's
	// is reason to drop the message.
	if err := s.recognized(m.SourceEID, 0); errors.Is(err, errUnknownVendor) {
		return err
	}
	kept := m.ITRRLOCs[:0]
	for _, a := range m.ITRRLOCs {
		if keep, err := s.keep(a); err != nil {
			return err
		} else if keep {
			kept = append(kept, a)
		}
	}
	m.ITRRLOCs = kept
	for i := range m.Records {
		if err := s.eid(m.Records[i].EID); err != nil {
			return err
		}
	}
	if m.MapData != nil {
		return s.record(m.MapData)
	}
	return nil
}

func (s screen) records(rs []EIDRecord) error {
	for i := range rs {
		if err := s.record(&rs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s screen) record(r *EIDRecord) error {
	if err := s.eid(r.EID); err != nil {
		return err
	}
	var err error
	r.Locators, err = s.locators(r.Locators)
	return err
}

func (s screen) locators(ls []RLOCRecord) ([]RLOCRecord, error) {
	kept := ls[:0]
	for i := range ls {
		if keep, err := s.keep(ls[i].RLOC); err != nil {
			return ls, err
		} else if keep {
			kept = append(kept, ls[i])
		}
	}
	return kept, nil
}

func (s screen) eid(a Address) error {
	if err := s.recognized(a, 0); err != nil {
		return fmt.Errorf("lisp: EID %s: %w", a, err)
	}
	return nil
}

// keep reports whether a locator is understood; the error drops the message.
func (s screen) keep(a Address) (bool, error) {
	err := s.recognized(a, 0)
	if errors.Is(err, errUnknownVendor) {
		return false, fmt.Errorf("lisp: locator %s: %w", a, err)
	}
	return err == nil, nil
}

// recognized looks at a and into AFI lists, of which one understood element is
// enough. LCAFs of other types stand for themselves.
func (s screen) recognized(a Address, depth int) error {
	if a.AFI() != AFILCAF || a.ip.IsValid() {
		return nil
	}
	if depth == maxLCAFDepth {
		return errUnrecognized
	}
	l, err := a.LCAF()
	if err != nil {
		return errUnrecognized
	}
	var inner []Address
	switch l := l.(type) {
	case *RawLCAF:
		return errUnrecognized
	case *VendorSpecific:
		if !slices.Contains(s.known, l.OUI) {
			return errUnknownVendor
		}
		return nil
	case *AFIList:
		inner = l.Addresses
	case *InstanceID:
		return s.recognized(l.Address, depth+1)
	default:
		return nil
	}
	result := errUnrecognized
	if len(inner) == 0 {
		result = nil
	}
	for _, a := range inner {
		switch err := s.recognized(a, depth+1); {
		case err == nil:
			result = nil
		case errors.Is(err, errUnknownVendor):
			return err
		}
	}
	return result
}
