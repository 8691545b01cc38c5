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

// recognized looks at a and at the addresses inside it. One understood element
// is enough for an AFI list; an LCAF of another type stands for itself, unless a
// vendor's is somewhere in it.
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
	if v, ok := l.(*VendorSpecific); ok && !slices.Contains(s.known, v.OUI) {
		return errUnknownVendor
	}
	inner := innerAddresses(l)
	understood := 0
	for _, a := range inner {
		switch err := s.recognized(a, depth+1); {
		case errors.Is(err, errUnknownVendor):
			return err
		case err == nil:
			understood++
		}
	}
	switch l.(type) {
	case *RawLCAF:
		return errUnrecognized
	case *AFIList, *InstanceID:
		if understood == 0 && len(inner) > 0 {
			return errUnrecognized
		}
	}
	return nil
}

// innerAddresses returns the addresses that l is made of.
func innerAddresses(l LCAF) []Address {
	switch l := l.(type) {
	case *AFIList:
		return l.Addresses
	case *InstanceID:
		return []Address{l.Address}
	case *ASNumber:
		return []Address{l.Address}
	case *ApplicationData:
		return []Address{l.Address}
	case *GeoCoordinates:
		return []Address{l.Address}
	case *NATTraversal:
		return append([]Address{l.GlobalETR, l.MS, l.PrivateETR}, l.RTRs...)
	case *NonceLocator:
		return []Address{l.Address}
	case *MulticastInfo:
		return []Address{l.Source, l.Group}
	case *ExplicitPath:
		as := make([]Address, 0, len(l.Hops))
		for _, h := range l.Hops {
			as = append(as, h.Address)
		}
		return as
	case *SecurityKey:
		return []Address{l.Address}
	case *SourceDest:
		return []Address{l.Source, l.Dest}
	case *ReplicationList:
		as := make([]Address, 0, len(l.Entries))
		for _, e := range l.Entries {
			as = append(as, e.Address)
		}
		return as
	case *JSON:
		return []Address{l.Address}
	case *KeyValue:
		return []Address{l.Key, l.Value}
	case *EncapsulationFormat:
		return []Address{l.Address}
	}
	return nil
}
