package natt

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Defaults of a zero RTRConfig.
const (
	DefaultRelayLifetime = 3*time.Minute + 30*time.Second // the three minutes of a registration, and some for the way
	DefaultMaxRelays     = 1 << 16
	DefaultMaxPending    = 4096
	DefaultRegisterRate  = 1000 // a second
	DefaultSourceRate    = 50   // a second
)

// RTRConfig configures an RTR. The zero value of a number is its default.
type RTRConfig struct {
	// MapServers are those that Map-Registers are relayed to, and that
	// Map-Notifies are taken from; at least one, or LispersNet.
	MapServers []RTRMapServer

	// RLOCs are the RTR's own addresses, see SetRLOCs.
	RLOCs []netip.Addr

	// RequireKey refuses Map-Notifies of Map-Servers that no key is shared with.
	// Otherwise the nonce of a Map-Register under way must be in them.
	RequireKey bool

	// LispersNet also takes the Info-Requests that xTRs of lispers.net send to the
	// data port. Nothing about them is authenticated: whoever knows the host name
	// of a node can have its traffic.
	LispersNet bool

	// Lifetime is how long a node may be silent, unless its Map-Register asks for
	// less by a Record TTL, or for the Record TTL by the T bit.
	Lifetime time.Duration

	// MaxRelays bounds the table: EID-Prefix, xTR and local RLOC; and that of host
	// names. MaxPending bounds the Map-Registers that no Map-Notify has come for;
	// when there are more the oldest are forgotten.
	MaxRelays, MaxPending int

	// RegisterRate bounds the Map-Registers a second that are relayed for nodes
	// that have nothing verified yet; those that have get as much again. SourceRate
	// is that of one source address, of which an IPv6 /64 is one.
	RegisterRate, SourceRate float64

	Rand   io.Reader    // nil: crypto/rand
	Logger *slog.Logger // nil: silent
}

// RTRMapServer is a Map-Server that an RTR works for.
type RTRMapServer struct {
	Addr netip.Addr
	// Key is shared between Map-Server and RTR; its Map-Notifies must be
	// authenticated with it. Without a Secret there is none.
	Key lisp.Key
	// Variant is how Map-Registers are relayed: Draft19 or Old.
	Variant Variant
}

// Limits that are not configurable.
const (
	pendingTime     = 10 * time.Second // for the Map-Notify to come
	pendingEIDs     = 64               // remembered for each of MaxPending, on average
	maxAttempts     = 4                // sources that Map-Registers with one nonce come from
	squeezeAt       = 64               // settled attempts that are kept in the queue
	maxLocals       = 8                // local RLOCs of an xTR for an EID-Prefix
	confirmedNonces = 32               // remembered for each EID-Prefix and xTR
	maxRTRQueue     = 4096             // datagrams waiting for Next
	maxRTREvents    = 1024             // events waiting for NextEvent
	defaultPriority = 1
	defaultWeight   = 100
	priorityUnused  = 255
	unsolicitedRate = 100 // Map-Notifies a second that nobody waits for
)

// RTR is the core of an RTR (draft-ermagan-lisp-nat-traversal-19 §5.3), without
// I/O. It relays Map-Registers of nodes behind NATs to Map-Servers, and what
// they answer to the nodes. What a Map-Server has confirmed becomes a Relay: at
// which translated address and port the node that has an EID-Prefix is reached.
//
// One goroutine at a time.
type RTR struct {
	cfg   RTRConfig
	log   *slog.Logger
	rlocs []netip.Addr

	pending  map[pendingKey][]*attempt
	attempts []*attempt // oldest first; some are settled
	waiting  int        // of attempts, those not settled
	wanted   int        // EID-Prefixes of these

	eids   map[eidKey]*eidState
	relays int
	seq    uint64
	expiry relayHeap
	dirty  []eidKey
	names  nameTable

	unknown, known, unasked bucket
	sources                 sourceBuckets

	out    []queuedDatagram
	outBuf []byte
	next   int
	events []RTREvent
	stats  RTRStats

	register lisp.MapRegister
	notify   lisp.MapNotify
	ecm      lisp.EncapsulatedControl
}

type queuedDatagram struct {
	d          lisp.Datagram
	start, end int
}

// NewRTR makes an RTR. The error wraps ErrConfig.
func NewRTR(cfg RTRConfig) (*RTR, error) {
	if len(cfg.MapServers) == 0 && !cfg.LispersNet {
		return nil, fmt.Errorf("natt: RTR: no Map-Server: %w", ErrConfig)
	}
	servers := make([]RTRMapServer, len(cfg.MapServers))
	for i, m := range cfg.MapServers {
		m.Addr = m.Addr.Unmap()
		switch {
		case !usable(m.Addr):
			return nil, fmt.Errorf("natt: RTR: Map-Server address %v: %w", m.Addr, ErrConfig)
		case m.Variant != Draft19 && m.Variant != Old:
			return nil, fmt.Errorf("natt: RTR: Map-Server %v: nothing is relayed by %v: %w", m.Addr, m.Variant, ErrConfig)
		}
		if err := checkRTRKey(m.Key); err != nil {
			return nil, fmt.Errorf("natt: RTR: Map-Server %v: %w: %w", m.Addr, err, ErrConfig)
		}
		servers[i] = m
	}
	cfg.MapServers = servers
	if cfg.Lifetime == 0 {
		cfg.Lifetime = DefaultRelayLifetime
	}
	if cfg.MaxRelays == 0 {
		cfg.MaxRelays = DefaultMaxRelays
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = DefaultMaxPending
	}
	if cfg.RegisterRate == 0 {
		cfg.RegisterRate = DefaultRegisterRate
	}
	if cfg.SourceRate == 0 {
		cfg.SourceRate = DefaultSourceRate
	}
	if cfg.Lifetime < 0 || cfg.MaxRelays < 0 || cfg.MaxPending < 0 || cfg.RegisterRate < 0 || cfg.SourceRate < 0 {
		return nil, fmt.Errorf("natt: RTR: negative limit: %w", ErrConfig)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var seed [8]byte
	if _, err := io.ReadFull(cfg.Rand, seed[:]); err != nil {
		return nil, fmt.Errorf("natt: random seed: %w", err)
	}
	r := &RTR{
		cfg: cfg, log: cfg.Logger.With("component", "rtr"),
		pending: make(map[pendingKey][]*attempt),
		eids:    make(map[eidKey]*eidState),
		unknown: newBucket(cfg.RegisterRate), known: newBucket(cfg.RegisterRate), unasked: newBucket(unsolicitedRate),
		sources: sourceBuckets{seed: binary.BigEndian.Uint64(seed[:]), rate: cfg.SourceRate},
	}
	r.setRLOCs(cfg.RLOCs)
	for i := range servers {
		if m := &servers[i]; len(m.Key.Secret) == 0 && !cfg.RequireKey {
			r.log.Warn("no key is shared with the map-server: who can forge its address can have any node's packets", "map_server", m.Addr)
		}
	}
	return r, nil
}

// checkRTRKey refuses keys that a Map-Server and an RTR can't share.
func checkRTRKey(k lisp.Key) error {
	if len(k.Secret) == 0 {
		return nil
	}
	if k.Algorithm != lisp.AlgorithmHMACSHA1 && k.Algorithm != lisp.AlgorithmHMACSHA256 {
		return fmt.Errorf("%s between a Map-Server and an RTR: %w", k.Algorithm, lisp.ErrUnsupported)
	}
	return nil
}

// SetRLOCs replaces the RTR's own addresses: a mapping that has one of them is
// one that comes here. An address that nodes register through is one of them
// anyhow.
func (r *RTR) SetRLOCs(rlocs []netip.Addr) { r.setRLOCs(rlocs) }

func (r *RTR) setRLOCs(rlocs []netip.Addr) {
	r.rlocs = r.rlocs[:0]
	for _, a := range rlocs {
		r.rlocs = append(r.rlocs, a.Unmap())
	}
}

// Handle takes one datagram and reports whether it was for an RTR: an
// Encapsulated Control Message with the R bit and a Map-Register or Map-Notify
// in it, a Map-Notify for a Map-Register that was relayed without an ECM, or an
// Info-Request that came to the data port. d.Bytes are only read during the call.
func (r *RTR) Handle(now time.Time, d lisp.Datagram) bool {
	d.Remote = netip.AddrPortFrom(d.Remote.Addr().Unmap(), d.Remote.Port())
	d.Local = netip.AddrPortFrom(d.Local.Addr().Unmap(), d.Local.Port())
	r.settlePending(now)
	if d.Local.Port() == lisp.DataPort {
		return r.cfg.LispersNet && r.handleName(now, d)
	}
	switch lisp.TypeOf(d.Bytes) {
	case lisp.TypeEncapsulatedControl:
		return r.handleECM(now, d)
	case lisp.TypeMapNotify:
		return r.handleOldNotify(now, d)
	default:
		return false
	}
}

func (r *RTR) handleECM(now time.Time, d lisp.Datagram) bool {
	m := &r.ecm
	if err := m.DecodeFromBytes(d.Bytes); err != nil || !m.RTR {
		return false // for others, who may find it malformed
	}
	in, err := m.Inner()
	if err != nil {
		r.drop(now, RTRMalformed, d.Remote, lisp.XTRID{}, err.Error())
		return true
	}
	switch lisp.TypeOf(in.Payload) {
	case lisp.TypeMapRegister:
		r.handleRegister(now, d, in)
	case lisp.TypeMapNotify:
		r.handleNotify(now, d, in)
	default:
		r.drop(now, RTRInner, d.Remote, lisp.XTRID{}, lisp.TypeOf(in.Payload).String())
	}
	return true
}

// Advance forgets nodes that were silent for too long, and Map-Registers that no
// Map-Notify came for.
func (r *RTR) Advance(now time.Time) {
	r.settlePending(now)
	r.expire(now)
	r.names.expire(r, now)
}

// Deadline is when Advance has something to do next; zero when never.
func (r *RTR) Deadline() time.Time {
	var first time.Time
	for _, at := range [...]time.Time{r.pendingDeadline(), r.expiry.deadline(), r.names.deadline()} {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// Next returns the next datagram to send. Its Bytes are valid until the next
// call of a method of the RTR.
func (r *RTR) Next() (lisp.Datagram, bool) {
	if r.next == len(r.out) {
		r.out, r.outBuf, r.next = r.out[:0], r.outBuf[:0], 0
		return lisp.Datagram{}, false
	}
	q := r.out[r.next]
	r.next++
	q.d.Bytes = r.outBuf[q.start:q.end:q.end]
	return q.d, true
}

// send queues one datagram from the control port that build appends to its
// argument.
func (r *RTR) send(from netip.Addr, to netip.AddrPort, ifIndex int, build func([]byte) ([]byte, error)) bool {
	if r.next == len(r.out) {
		r.out, r.outBuf, r.next = r.out[:0], r.outBuf[:0], 0
	}
	if len(r.out) >= maxRTRQueue {
		r.stats.Dropped[RTRQueueFull]++
		return false
	}
	start := len(r.outBuf)
	b, err := build(r.outBuf)
	if err != nil {
		r.log.Error("message not encoded", "peer", to, "err", err)
		return false
	}
	r.outBuf = b
	r.out = append(r.out, queuedDatagram{
		d:     lisp.Datagram{Local: netip.AddrPortFrom(from, lisp.ControlPort), Remote: to, IfIndex: ifIndex},
		start: start, end: len(b),
	})
	return true
}

// isOwn reports whether a is an address of the RTR, as far as it knows.
func (r *RTR) isOwn(a netip.Addr) bool { return slices.Contains(r.rlocs, a.Unmap()) }

// mapServer finds a configured Map-Server.
func (r *RTR) mapServer(a netip.Addr) (*RTRMapServer, bool) {
	for i := range r.cfg.MapServers {
		if r.cfg.MapServers[i].Addr == a.Unmap() {
			return &r.cfg.MapServers[i], true
		}
	}
	return nil, false
}

// usable reports whether a can be the address of somebody.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
