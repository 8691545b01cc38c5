package mapcache

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Key names an entry: an EID within an instance, which is either an EID-Prefix of
// IPv4 or IPv6 or a MAC. Prefix is masked and not IPv4-mapped; constructors in this
// package see to that.
type Key struct {
	IID    uint32       // 0..0xffffff; 0 is no instance
	MAC    MAC          `json:",omitzero"` // only if Prefix is the zero Prefix
	Prefix netip.Prefix // the zero Prefix if MAC is set
}

// MakeKey returns the Key of an EID-Prefix: unmapped, masked and without zone. The
// Prefix of the Key is the zero Prefix if p is not valid.
func MakeKey(iid uint32, p netip.Prefix) Key {
	a, bits := p.Addr(), p.Bits()
	if a.Is4In6() && bits >= 96 { // a shorter one is no IPv4 prefix
		a, bits = a.Unmap(), bits-96
	}
	p, _ = a.Prefix(bits) // the zero Prefix if bits do not fit
	return Key{IID: iid, Prefix: p}
}

// HostKey returns the Key of a single EID.
func HostKey(iid uint32, a netip.Addr) Key {
	a = a.Unmap().WithZone("")
	return Key{IID: iid, Prefix: netip.PrefixFrom(a, a.BitLen())}
}

// String prints the key as the field's tools do: 192.0.2.0/24, [7]192.0.2.0/24 or
// [7]02:00:00:00:00:01.
func (k Key) String() string {
	s := k.Prefix.String()
	if k.isMAC() {
		s = k.MAC.String()
	}
	if k.IID == 0 {
		return s
	}
	return fmt.Sprintf("[%d]%s", k.IID, s)
}

// Locator is where packets are tunnelled to. It is comparable: two entries that
// name the same Locator share its reachability.
type Locator struct {
	Addr    netip.Addr
	Port    uint16 // 0 stands for Format.Port until Insert normalises it
	Format  Format
	IfIndex int // the interface to leave by; 0: any
	// NAT says that a NAT is on the way, which knows us by one source port of
	// ours: all packets leave from that one, and none by a port of its flow.
	NAT bool `json:",omitzero"`
}

// RLOC is a Locator as one mapping uses it.
type RLOC struct {
	Locator
	Priority uint8 // 0..254, lower wins; 255 is never used for unicast
	Weight   uint8 // share among equal priorities
	Down     bool  // the R bit of the record was 0

	MPriority uint8 // for joining multicast trees (ChooseJoin); 255 never
	MWeight   uint8
}

// Origin says how an entry came to be.
type Origin uint8

// Origins of an entry.
const (
	OriginMapReply Origin = iota // learned by a Map-Reply
	OriginStatic                 // configured; never expires, never evicted
	OriginGleaned                // taken from a data packet by Glean; short-lived, not verified
	OriginNotify                 // published by a Map-Notify to a subscriber (RFC 9437); else as a Map-Reply
)

var originNames = [...]string{"map-reply", "static", "gleaned", "map-notify"}

func (o Origin) String() string {
	if int(o) < len(originNames) {
		return originNames[o]
	}
	return fmt.Sprintf("origin(%d)", uint8(o))
}

// verified tells whether the mapping system vouches for entries of the origin.
func (o Origin) verified() bool { return o == OriginMapReply || o == OriginNotify }

// TTLForever keeps an entry until it is removed.
const TTLForever time.Duration = -1

// RecordTTL converts the Record TTL of a message, in minutes (RFC 9301 §5.4): 0
// removes, all ones leaves the lifetime to the receiver.
func RecordTTL(minutes uint32) time.Duration {
	if minutes == lisp.TTLUnlimited {
		return TTLForever
	}
	// 2^32 minutes do not fit a Duration.
	return time.Duration(min(int64(minutes), maxTTLMinutes)) * time.Minute
}

const maxTTLMinutes = 365 * 24 * 60

// Mapping is the content of an entry: what a Map-Reply or a configuration says
// about one EID.
type Mapping struct {
	Key
	RLOCs         []RLOC        // empty: a negative mapping; the order is kept, at most 255
	Action        lisp.Action   // of a negative mapping
	TTL           time.Duration // 0 removes the entry; TTLForever of a learned one means Config.UnlimitedTTL
	Origin        Origin
	Authoritative bool   // the A bit of the record (RFC 9301 §5.4)
	MapVersion    uint16 // 1..4095; 0: none (RFC 9302 §6)
	// Asked is the EID-Prefix of the Map-Request that the mapping answers, a
	// host prefix after a miss. More-specific entries that cover it are replaced
	// by this less-specific one (RFC 9301 §5.5): the mapping system would have
	// answered with them if they still existed. The zero Prefix replaces none.
	// It is not stored, and means nothing for a MAC.
	Asked netip.Prefix
}

// Negative reports whether the mapping has no locators.
func (m *Mapping) Negative() bool { return len(m.RLOCs) == 0 }

// Reason says why a Change was made.
type Reason uint8

// Reasons. ReasonLocatorUp and ReasonLocatorDown are about a locator, all others
// about an entry.
const (
	ReasonAdded       Reason = iota // a new entry
	ReasonUpdated                   // an entry forwards differently now
	ReasonRefreshed                 // stored again, forwarding as before
	ReasonRemoved                   // by Remove, or by a mapping with TTL 0
	ReasonExpired                   // its TTL ran out
	ReasonEvicted                   // to make room
	ReasonReplaced                  // by a less-specific mapping
	ReasonLocatorUp                 // Change.Locator is usable again
	ReasonLocatorDown               // Change.Locator is not usable
	numReasons
)

var reasonNames = [numReasons]string{
	"added", "updated", "refreshed", "removed", "expired", "evicted", "replaced", "locator-up", "locator-down",
}

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Change is one numbered mutation of a Cache, in the order made. Seq grows by
// one; a gap means that changes were not drained in time and are lost, and that
// a mirror has to start over from [Cache.All].
//
// A change of a locator has no Key (it is the zero Key) and no Forwarding; it is in force already, without Publish.
type Change struct {
	Seq      uint64
	Reason   Reason
	Key      Key
	Old, New Forwarding // before and after it
	Locator  Locator    // ReasonLocatorUp and ReasonLocatorDown only
}

// Verdict is what forwarding does with a packet.
type Verdict uint8

// Verdicts. Miss is the zero value: nothing is known about the destination.
const (
	Miss        Verdict = iota
	Encapsulate         // to the locator of the decision
	Native              // forward unencapsulated
	Drop                // by the mapping's action
	NoLocator           // positive mapping, but no usable locator
	SendRequest         // like Drop, but every packet asks again (ACT 2)
)

var verdictNames = [...]string{"miss", "encapsulate", "native", "drop", "no-locator", "send-request"}

func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// Forwarding is the part of an entry that data planes mirror.
type Forwarding struct {
	Present bool // there is an entry
	Verdict Verdict
	Action  lisp.Action // of a negative mapping
	RLOCs   []RLOC      // nil unless Verdict is Encapsulate or NoLocator; do not modify
}

// Local is one of our own locators, as the data plane and the control plane see it.
type Local struct {
	IfIndex  int // the interface that has the address; 0: whichever does
	Addr     netip.Addr
	Priority uint8 // 0..254, lower wins; 255 is never sent from
	Weight   uint8 // share among equal priorities
	// Up: packets can be sent from it. One that is not is still ours, and others are
	// told that it is down.
	Up bool
}

// Usage reports what a data plane did with an entry, a locator or both since the
// last report. Key or Locator is the zero value if the packets are those of
// different ones, which other reports are about.
type Usage struct {
	Key                   Key
	Locator               Locator
	PacketsOut, OctetsOut uint64 // inner packets that were encapsulated, and their octets
	PacketsIn, OctetsIn   uint64 // decapsulated
	LastUsed              time.Time
}

// DiscoveryKind says what a data plane noticed.
type DiscoveryKind uint8

// Kinds of discovery.
const (
	DiscoveryMiss    DiscoveryKind = iota // PendingMisses has something to say
	DiscoveryRequest                      // a packet met an ACT 2 entry (Key is its destination)

	// Of closed networks, about a packet that came from Locator. They are reported
	// for as long as they last, but seldom.
	DiscoveryLSBs           // other LSBs than those of the Signals; Key is the inner source
	DiscoveryNewerSource    // a Source Map-Version newer than that of the entry; Key is the inner source
	DiscoveryStaleVersion   // an old Map-Version of ours; Key is the inner destination, Source the inner source
	DiscoveryInvalidVersion // a Map-Version of ours that is newer than ours; fields as before
	DiscoveryEchoed         // the nonce of the LocatorSignal
	DiscoveryEchoAsked      // an echo is asked for while we ask for one

	// Of any network.
	DiscoveryUnreachable // an ICMP error, which anybody may have sent, says that Locator is not reachable
	DiscoverySource      // packets come from an inner source, Key, without a mapping to check them by
)

// Discovery is something a data plane noticed that the control plane should know.
type Discovery struct {
	Kind DiscoveryKind
	Key  Key

	Locator    Locator    // the outer source of the packet
	Source     netip.Addr // its inner source
	LSBs       uint32     // with DiscoveryLSBs, one for each locator of the entry
	MapVersion uint16     // the Map-Version Number that the packet has
}
