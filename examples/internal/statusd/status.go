package statusd

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Status is the state of a program at one moment.
type Status struct {
	Program string    `json:"program"` // lispmn or lispms
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Time    time.Time `json:"time"` // when the snapshot was taken

	Node      *Node      `json:"node,omitempty"`
	MapServer *MapServer `json:"mapServer,omitempty"`
	RTR       *RTR       `json:"rtr,omitempty"`
}

// Node is the state of a mobile node.
type Node struct {
	Device        string            `json:"device"`
	MTU           int               `json:"mtu"` // octets
	EIDs          []netip.Prefix    `json:"eids"`
	Interfaces    []Interface       `json:"interfaces"`
	Locals        []Local           `json:"locals"`
	NAT           []Binding         `json:"nat,omitempty"`
	Registrations []Registration    `json:"registrations"`
	Database      []Entry           `json:"database"`
	MapCache      []Entry           `json:"mapCache"`
	Paths         []Path            `json:"paths,omitempty"`
	Traffic       Traffic           `json:"traffic"`
	Goroutines    int               `json:"goroutines"`
	Refused       []Refusal         `json:"refused,omitempty"` // what the system does not let the node do now
	Control       map[string]uint64 `json:"control"`           // counters of control messages
	ControlDrops  map[string]uint64 `json:"controlDrops"`      // by reason, without zeros
}

// Refusal is a change, of routes for instance, that the system refuses and that is
// tried again and again.
type Refusal struct {
	What   string    `json:"what"`
	Reason string    `json:"reason"` // of the last try
	Since  time.Time `json:"since"`
	Tries  uint64    `json:"tries"`
}

// Local is an own locator.
type Local struct {
	Addr     netip.Addr `json:"addr"`
	IfIndex  int        `json:"ifIndex"`
	Priority uint8      `json:"priority"`
	Weight   uint8      `json:"weight"`
	Up       bool       `json:"up"`
}

// Interface is a network interface that could be an uplink.
type Interface struct {
	Name    string       `json:"name"`
	Index   int          `json:"index"`
	Up      bool         `json:"up"` // with a carrier
	Addrs   []netip.Addr `json:"addrs,omitempty"`
	IPv4    string       `json:"ipv4"` // usable, or why it is not
	IPv6    string       `json:"ipv6"`
	Locator bool         `json:"locator"` // one of the node's locators is an address of it
}

// Registration is what a Map-Server knows of this node, as far as the node can tell.
type Registration struct {
	MapServer netip.Addr    `json:"mapServer"`
	EIDs      []string      `json:"eids"`
	State     string        `json:"state"`
	Since     time.Time     `json:"since,omitzero"` // of the last confirmation
	RTT       time.Duration `json:"rttNanoseconds,omitempty"`
	LastError string        `json:"lastError,omitempty"`
}

// Entry is one mapping of the map-cache or of the own database.
type Entry struct {
	IID     uint32       `json:"iid,omitempty"`
	Prefix  netip.Prefix `json:"prefix"`
	Origin  string       `json:"origin"`
	Action  string       `json:"action,omitempty"` // of a negative entry
	Created time.Time    `json:"created,omitzero"`
	Expires time.Time    `json:"expires,omitzero"` // zero: never
	RLOCs   []RLOC       `json:"rlocs,omitempty"`
	// Of the map-cache: what was exchanged with EIDs of the entry since Created, by
	// whatever locator.
	In  Counter `json:"in,omitzero"`
	Out Counter `json:"out,omitzero"`
}

// RLOC is a locator of an Entry.
type RLOC struct {
	Addr     netip.Addr `json:"addr"`
	Port     uint16     `json:"port,omitempty"`
	Priority uint8      `json:"priority"`
	Weight   uint8      `json:"weight"`
	State    string     `json:"state"` // up or down
	// Of the map-cache: as measured by probes, and what was exchanged with all EIDs
	// behind the locator, not only with those of this entry.
	RTT time.Duration `json:"rttNanoseconds,omitempty"`
	In  Counter       `json:"in,omitzero"`
	Out Counter       `json:"out,omitzero"`
}

// Path is a pair of an own and a remote locator that is probed.
type Path struct {
	Local    netip.Addr    `json:"local"`
	Remote   netip.Addr    `json:"remote"`
	State    string        `json:"state"`                    // up, down, or unknown before the first answer
	RTT      time.Duration `json:"rttNanoseconds,omitempty"` // smoothed
	Sent     uint64        `json:"sent"`
	Answered uint64        `json:"answered"`
}

// Traffic is what the data plane has counted since the start.
type Traffic struct {
	Encapsulated Counter `json:"encapsulated"`
	Decapsulated Counter `json:"decapsulated"`
	Native       Counter `json:"native"`
	Held         uint64  `json:"held"`     // packets that waited for a mapping
	Released     uint64  `json:"released"` // of those, the ones that then left
	HeldNow      int     `json:"heldNow"`
	// PolicyFallbacks is packets that left otherwise than uplink-policy and
	// firewall-marks say, because what those name could not be used.
	PolicyFallbacks uint64            `json:"policyFallbacks,omitempty"`
	Locators        []LocatorTraffic  `json:"locators"`
	Drops           map[string]uint64 `json:"drops"`            // by reason, without zeros
	Kernel          *KernelTraffic    `json:"kernel,omitempty"` // missing: all in user space
	// UserSpace is why the kernel does not forward packets.
	UserSpace string `json:"userSpace,omitempty"`
}

// KernelTraffic is the part of the traffic that did not enter user space.
type KernelTraffic struct {
	Encapsulated Counter           `json:"encapsulated"`
	Decapsulated Counter           `json:"decapsulated"`
	Entries      int               `json:"entries"` // of the map-cache that are in the kernel
	Slow         map[string]uint64 `json:"slow"`    // packets that were left to user space, by reason, without zeros
	// AllSlow: all packets are left to user space now, because of a closed network, a
	// policy, or a map-cache that does not fit.
	AllSlow bool `json:"allSlow,omitempty"`
}

// Counter counts inner packets and their octets.
type Counter struct {
	Packets uint64 `json:"packets"`
	Octets  uint64 `json:"octets"`
}

// LocatorTraffic is the traffic with one remote locator.
type LocatorTraffic struct {
	Addr netip.Addr `json:"addr"`
	Out  Counter    `json:"out"`
	In   Counter    `json:"in"`
}

// MapServer is the state of a Map-Server.
type MapServer struct {
	Sites         []Site            `json:"sites"`
	Registrations []SiteEntry       `json:"registrations"`
	Counters      map[string]uint64 `json:"counters"`
	Refused       map[string]uint64 `json:"refused"` // by reason, without zeros
	History       []Past            `json:"history,omitempty"`
	MapServers    []MapServerHealth `json:"mapServers,omitempty"` // that requests are forwarded to
}

// Past is something that happened to a registration, oldest first.
type Past struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// MapServerHealth is a Map-Server that a Map-Resolver forwards requests to.
type MapServerHealth struct {
	Addr   netip.AddrPort `json:"addr"`
	Health string         `json:"health"` // up, doubtful or down
}

// Site is a configured LISP site.
type Site struct {
	Name     string   `json:"name"`
	Prefixes []string `json:"prefixes"`
}

// SiteEntry is one registered EID-Prefix.
type SiteEntry struct {
	Site    string       `json:"site"`
	IID     uint32       `json:"iid,omitempty"`
	Prefix  netip.Prefix `json:"prefix"`
	From    netip.Addr   `json:"from,omitzero"`
	Expires time.Time    `json:"expires,omitzero"`
	RLOCs   []RLOC       `json:"rlocs"`
}

// Event is something that happened.
type Event struct {
	Seq  uint64          `json:"seq"` // counts from 1 without gaps
	Time time.Time       `json:"time"`
	Kind string          `json:"kind"` // such as registered or map-request-sent
	Text string          `json:"text"` // one line for people
	Data json.RawMessage `json:"data,omitempty"`
}

// Decode reads the details of the event into v.
func (e Event) Decode(v any) error { return json.Unmarshal(e.Data, v) }
