package netsim

import (
	"encoding/binary"
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
	Injected               // see Network.Inject
	numKinds
)

var kindNames = [numKinds]string{
	"sent", "delivered", "duplicated", "lost", "too big", "link down", "no route", "blocked by nat", "unclaimed", "queue full", "injected",
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
	Node     *Node  // that sent it or got it, if Kind says so
	From, To netip.AddrPort
	Bytes    []byte // valid during the call of Config.Trace
}

// String is one readable line.
func (r Record) String() string {
	return fmt.Sprintf("%s %s: %s %v > %v %d octets", r.At.Format("15:04:05.000"), r.Where, r.Kind, r.From, r.To, len(r.Bytes))
}

// trace sums up the records.
type trace struct {
	hash   traceHash
	counts [numKinds]uint64
}

const (
	hashSeed  = 14695981039346656037
	hashPrime = 0x9e3779b97f4a7c15 // odd, so that no step loses anything
)

// traceHash is fast rather than strong: eight octets at a time.
type traceHash uint64

func (h *traceHash) word(v uint64) {
	x := (uint64(*h) ^ v) * hashPrime
	*h = traceHash(x ^ x>>32)
}

func (h *traceHash) bytes(b []byte) {
	h.word(uint64(len(b)))
	for ; len(b) >= 8; b = b[8:] {
		h.word(binary.LittleEndian.Uint64(b))
	}
	var rest uint64
	for _, c := range b {
		rest = rest<<8 | uint64(c)
	}
	h.word(rest)
}

func (h *traceHash) addr(a netip.AddrPort) {
	b := a.Addr().As16()
	h.word(binary.LittleEndian.Uint64(b[:8]))
	h.word(binary.LittleEndian.Uint64(b[8:]))
	h.word(uint64(a.Port()))
}

// record notes what happened to p.
func (n *Network) record(k Kind, where string, p *packet) { n.note(k, nil, where, p) }

func (n *Network) note(k Kind, nd *Node, where string, p *packet) {
	t := &n.trace
	t.counts[k]++
	h := &t.hash
	h.word(uint64(k))
	h.word(uint64(n.now))
	for i := range len(where) {
		h.word(uint64(where[i]))
	}
	h.addr(p.from)
	h.addr(p.to)
	h.bytes(p.bytes)
	if n.cfg.Trace != nil {
		n.cfg.Trace(Record{Kind: k, At: n.Now(), Where: where, Node: nd, From: p.from, To: p.to, Bytes: p.bytes})
	}
}

// TraceHash is a hash of everything that has happened to any datagram, when and
// where. Two runs with the same hash were the same.
func (n *Network) TraceHash() uint64 { return uint64(n.trace.hash) }

// Count is how many records of a kind there have been.
func (n *Network) Count(k Kind) uint64 {
	if k < numKinds {
		return n.trace.counts[k]
	}
	return 0
}
