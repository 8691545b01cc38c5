package lisp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

const (
	maxRecords  = 255 // Record Count and Locator Count are one octet
	maxITRRLOCs = 32  // IRC is five bits and counts from one
)

// Prefix returns the EID-Prefix of the record as it stands there: the host bits
// are not cleared and an IPv4-mapped address stays IPv6. It is not ok for an EID
// other than IPv4 or IPv6, plain or in an Instance-ID LCAF.
func (r *EIDRecord) Prefix() (iid uint32, p netip.Prefix, ok bool) {
	return r.EID.prefix(r.MaskLen)
}

// Negative reports whether the record says that there is no locator.
func (r *EIDRecord) Negative() bool { return len(r.Locators) == 0 }

// String prints <eid>/<mask-len>, the TTL in minutes and the locators or the action.
func (r *EIDRecord) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s ttl %d", prefixString(r.EID, r.MaskLen), r.TTL)
	if r.Authoritative {
		s.WriteString(" authoritative")
	}
	if r.Negative() {
		fmt.Fprintf(&s, " %s", r.Action)
		return s.String()
	}
	for i := range r.Locators {
		fmt.Fprintf(&s, " %s", &r.Locators[i])
	}
	return s.String()
}

// String prints <rloc>(priority/weight) and the L, p and R bits.
func (r *RLOCRecord) String() string {
	var flags strings.Builder
	for _, f := range [...]struct {
		set  bool
		name string
	}{{r.Local, "L"}, {r.Probed, "p"}, {r.Reachable, "R"}} {
		if f.set {
			flags.WriteString(f.name)
		}
	}
	if flags.Len() == 0 {
		flags.WriteByte('-')
	}
	return fmt.Sprintf("%s(%d/%d %s)", r.RLOC, r.Priority, r.Weight, flags.String())
}

// String returns the name in the IANA registry.
func (a Action) String() string {
	switch a {
	case ActionNoAction:
		return "no-action"
	case ActionNativelyForward:
		return "natively-forward"
	case ActionSendMapRequest:
		return "send-map-request"
	case ActionDropNoReason:
		return "drop/no-reason"
	case ActionDropPolicyDenied:
		return "drop/policy-denied"
	case ActionDropAuthFailure:
		return "drop/auth-failure"
	}
	return fmt.Sprintf("action-%d", uint8(a))
}

// eidRecords reads n EID-Records, reusing s.
func (r *reader) eidRecords(s []EIDRecord, n int) []EIDRecord {
	s = s[:0]
	for range n {
		s = grow(s)
		r.eidRecord(&s[len(s)-1])
		if r.err != nil {
			return s
		}
	}
	return s
}

func (r *reader) eidRecord(e *EIDRecord) {
	start := r.off
	b := r.take("EID-Record", 10)
	if b == nil {
		return
	}
	w := binary.BigEndian.Uint16(b[6:])
	v := binary.BigEndian.Uint16(b[8:])
	locators := e.Locators[:0]
	*e = EIDRecord{
		TTL:           binary.BigEndian.Uint32(b),
		MaskLen:       b[5],
		Action:        Action(w >> 13),
		Authoritative: w&0x1000 != 0,
		Reserved:      w & 0x0fff,
		Rsvd:          uint8(v >> 12),
		MapVersion:    v & 0x0fff,
	}
	r.address("EID-Prefix", &e.EID)
	r.checkMask("EID mask-len", start+5, e.MaskLen, e.EID)
	for range int(b[4]) {
		if r.err != nil {
			return
		}
		locators = grow(locators)
		r.rlocRecord(&locators[len(locators)-1])
	}
	e.Locators = locators
}

func (r *reader) rlocRecord(l *RLOCRecord) {
	b := r.take("RLOC-Record", 6)
	if b == nil {
		return
	}
	w := binary.BigEndian.Uint16(b[4:])
	l.Priority, l.Weight, l.MPriority, l.MWeight = b[0], b[1], b[2], b[3]
	l.Unused = w >> 3
	l.Local, l.Probed, l.Reachable = w&4 != 0, w&2 != 0, w&1 != 0
	r.address("Locator", &l.RLOC)
}

func appendEIDRecords(b []byte, message string, records []EIDRecord) ([]byte, error) {
	var err error
	for i := range records {
		if b, err = records[i].append(b, message); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (r *EIDRecord) append(b []byte, message string) ([]byte, error) {
	switch {
	case len(r.Locators) > maxRecords:
		return b, encodeError(message, "Locator Count", "%d", len(r.Locators))
	case int(r.MaskLen) > r.EID.maskBits():
		return b, encodeError(message, "EID mask-len", "%d for %s", r.MaskLen, r.EID)
	case r.Action > 7:
		return b, encodeError(message, "ACT", "%d", r.Action)
	case r.Reserved > 0x0fff:
		return b, encodeError(message, "Reserved", "%#x", r.Reserved)
	case r.Rsvd > 0x0f:
		return b, encodeError(message, "Rsvd", "%#x", r.Rsvd)
	case r.MapVersion > 0x0fff:
		return b, encodeError(message, "Map-Version Number", "%d", r.MapVersion)
	}
	w := uint16(r.Action)<<13 | r.Reserved
	if r.Authoritative {
		w |= 0x1000
	}
	b = binary.BigEndian.AppendUint32(b, r.TTL)
	b = append(b, byte(len(r.Locators)), r.MaskLen)
	b = binary.BigEndian.AppendUint16(b, w)
	b = binary.BigEndian.AppendUint16(b, uint16(r.Rsvd)<<12|r.MapVersion)
	b, err := r.EID.AppendBinary(b)
	if err != nil {
		return b, err
	}
	for i := range r.Locators {
		if b, err = r.Locators[i].append(b, message); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (r *RLOCRecord) append(b []byte, message string) ([]byte, error) {
	if r.Unused > 0x1fff {
		return b, encodeError(message, "Unused Flags", "%#x", r.Unused)
	}
	w := r.Unused << 3
	if r.Local {
		w |= 4
	}
	if r.Probed {
		w |= 2
	}
	if r.Reachable {
		w |= 1
	}
	b = append(b, r.Priority, r.Weight, r.MPriority, r.MWeight)
	b = binary.BigEndian.AppendUint16(b, w)
	return r.RLOC.AppendBinary(b)
}

// recordsString lists records behind the head of a message.
func recordsString(s *strings.Builder, records []EIDRecord) {
	for i := range records {
		sep := ", "
		if i == 0 {
			sep = " records "
		}
		s.WriteString(sep)
		s.WriteString(records[i].String())
	}
}
