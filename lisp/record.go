package lisp

// Action is the ACT field of a negative EID-Record: what an ITR does with a
// packet to an EID-Prefix that has no locators (RFC 9301 §5.4). Range 0..7.
type Action uint8

// Actions of a negative Map-Reply.
const (
	ActionNoAction         Action = 0
	ActionNativelyForward  Action = 1
	ActionSendMapRequest   Action = 2
	ActionDropNoReason     Action = 3
	ActionDropPolicyDenied Action = 4
	ActionDropAuthFailure  Action = 5
)

// TTLUnlimited in EIDRecord.TTL leaves the lifetime to the receiver (RFC 9301 §5.4).
const TTLUnlimited = 0xffffffff

// EIDRecord is the mapping of one EID-Prefix (RFC 9301 §5.4). It is kept as it
// came: reserved bits, host bits of the EID and all.
type EIDRecord struct {
	TTL           uint32 // minutes; 0: remove now; TTLUnlimited: the receiver decides
	MaskLen       uint8  // 0..32 or 0..128
	Action        Action // meaningful only without locators
	Authoritative bool   // A bit: the record comes from an ETR of the EID-Prefix
	Reserved      uint16 // the 12 bits behind A, normally 0
	Rsvd          uint8  // the 4 bits before MapVersion, normally 0
	MapVersion    uint16 // 0..4095, 0 is the Null Map-Version (RFC 9302 §6.1)
	EID           Address
	Locators      []RLOCRecord // at most 255
}

// RLOCRecord is one locator of an EID-Record (RFC 9301 §5.4).
type RLOCRecord struct {
	Priority, Weight   uint8  // unicast; lower priority wins, 255 is never used
	MPriority, MWeight uint8  // multicast
	Unused             uint16 // the 13 unused flag bits, normally 0
	Local              bool   // L bit: a locator of the sender itself
	Probed             bool   // p bit: the locator this probe reply is about
	Reachable          bool   // R bit: reachable as seen by the sender
	RLOC               Address
}
