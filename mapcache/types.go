package mapcache

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Key names an entry: an EID-Prefix within an instance. Prefix is masked and
// not IPv4-mapped; constructors in this package see to that.
type Key struct {
	IID    uint32
	Prefix netip.Prefix
}

// String prints the key as the field's tools do: 192.0.2.0/24 or [7]192.0.2.0/24.
func (k Key) String() string {
	if k.IID == 0 {
		return k.Prefix.String()
	}
	return fmt.Sprintf("[%d]%s", k.IID, k.Prefix)
}

// Format is how packets to a locator are encapsulated.
type Format uint8

// Encapsulation formats.
const (
	FormatLISP Format = iota // RFC 9300, UDP port 4341
)

// Locator is where packets are tunnelled to. It is comparable: two entries that
// name the same Locator share its reachability.
type Locator struct {
	Addr    netip.Addr
	Port    uint16 // 0 stands for lisp.DataPort until Insert normalises it
	Format  Format
	IfIndex int // the interface to leave by; 0: any
}

// RLOC is a Locator as one mapping uses it.
type RLOC struct {
	Locator
	Priority uint8 // 0..254, lower wins; 255 is never used for unicast
	Weight   uint8 // share among equal priorities
	Down     bool  // the R bit of the record was 0
}

// Origin says how an entry came to be.
type Origin uint8

// Origins of an entry.
const (
	OriginMapReply Origin = iota // learned by a Map-Reply
	OriginStatic                 // configured; never expires, never evicted
)

// TTLForever keeps an entry until it is removed.
const TTLForever time.Duration = -1

// Mapping is the content of an entry: what a Map-Reply or a configuration says
// about one EID-Prefix.
type Mapping struct {
	Key
	RLOCs         []RLOC // empty: a negative mapping
	Action        lisp.Action
	TTL           time.Duration // 0 removes the entry, TTLForever keeps it
	Origin        Origin
	Authoritative bool
	MapVersion    uint16
}

// Change is one numbered mutation of a Cache, in the order made.
type Change struct {
	Seq      uint64
	Key      Key
	Old, New Forwarding
}

// Verdict is what forwarding does with a packet.
type Verdict uint8

// Verdicts. Miss is the zero value: nothing is known about the destination.
const (
	Miss          Verdict = iota
	Encapsulate           // to the locator of the decision
	Native                // forward unencapsulated
	Drop                  // by the mapping's action
	NoLocator             // positive mapping, but no usable locator
	SendRequest           // like Drop, but every packet asks again (ACT 2)
)

// Forwarding is the part of an entry that data planes mirror.
type Forwarding struct {
	Present bool
	Verdict Verdict
	RLOCs   []RLOC // nil unless Verdict is Encapsulate or NoLocator; do not modify
}

// Local is one of our own locators, as the data plane and the control plane see it.
type Local struct {
	IfIndex          int
	Addr             netip.Addr
	Priority, Weight uint8
	Up               bool
}

// Usage reports what a data plane did with an entry and a locator since the
// last report. Locator is the zero value when no packet left by one.
type Usage struct {
	Key                   Key
	Locator               Locator
	PacketsOut, OctetsOut uint64
	PacketsIn, OctetsIn   uint64
	LastUsed              time.Time
}

// DiscoveryKind says what a data plane noticed.
type DiscoveryKind uint8

// Kinds of discovery.
const (
	DiscoveryMiss    DiscoveryKind = iota // PendingMisses has something to say
	DiscoveryRequest                      // a packet met an ACT 2 entry (Key is its destination)
)

// Discovery is something a data plane noticed that the control plane should know.
type Discovery struct {
	Kind DiscoveryKind
	Key  Key
}
