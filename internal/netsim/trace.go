package netsim

import (
	"fmt"
	"net/netip"
	"time"
)

// Kind says what happened to a datagram.
type Kind uint8

// Kinds of record.
const (
	Sent       Kind = iota // by a node
	Delivered              // to a node
	Duplicated             // a link made a copy
	Lost                   // on a link
	TooBig                 // for a link
	LinkDown               // the link was down
	NoRoute                // nobody has the address, or no interface to leave by
	NATBlocked             // no binding, or it is not for this peer
	Unclaimed              // delivered, but no core wanted it
	QueueFull              // of a PacketConn
	numKinds
)

var kindNames = [numKinds]string{
	"sent", "delivered", "duplicated", "lost", "too big", "link down", "no route", "blocked by nat", "unclaimed", "queue full",
}

func (k Kind) String() string {
	if k < numKinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Record is something that happened to a datagram.
type Record struct {
	Kind     Kind
	At       time.Time
	Where    string // the node, NAT or segment
	From, To netip.AddrPort
	Bytes    []byte // valid during the call of Config.Trace
}

// String is one readable line.
func (r Record) String() string {
	return fmt.Sprintf("%s %s: %s %v > %v %d octets", r.At.Format("15:04:05.000"), r.Where, r.Kind, r.From, r.To, len(r.Bytes))
}

// trace sums up the records.
type trace struct {
	hash   uint64
	counts [numKinds]uint64
}

// FNV-1a, 64 bits.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func (n *Network) record(k Kind, where string, p *packet) {
	t := &n.trace
	t.counts[k]++
	h := t.hash
	mix := func(v uint64) {
		for range 8 {
			h = (h ^ v&0xff) * fnvPrime
			v >>= 8
		}
	}
	mix(uint64(k))
	mix(uint64(n.now))
	for i := range len(where) {
		h = (h ^ uint64(where[i])) * fnvPrime
	}
	for _, a := range [...]netip.AddrPort{p.from, p.to} {
		b := a.Addr().As16()
		for _, c := range b {
			h = (h ^ uint64(c)) * fnvPrime
		}
		mix(uint64(a.Port()))
	}
	for _, c := range p.bytes {
		h = (h ^ uint64(c)) * fnvPrime
	}
	t.hash = h
	if n.cfg.Trace != nil {
		n.cfg.Trace(Record{Kind: k, At: n.Now(), Where: where, From: p.from, To: p.to, Bytes: p.bytes})
	}
}

// TraceHash is a hash of everything that has happened to any datagram, when and
// where. Two runs with the same hash were the same.
func (n *Network) TraceHash() uint64 { return n.trace.hash }

// Count is how many records of a kind there have been.
func (n *Network) Count(k Kind) uint64 {
	if k < numKinds {
		return n.trace.counts[k]
	}
	return 0
}
