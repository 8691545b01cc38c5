package encap

import (
	"errors"
	"net/netip"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// ErrTooBig is the error of an Outgoing, and of a NativeSender, for a packet
// that exceeds the MTU of the path and must not be fragmented.
var ErrTooBig = errors.New("packet exceeds the path MTU")

// Underlay is the network that encapsulated packets cross: UDP sockets, or
// queues in memory. Its methods are safe for concurrent use.
type Underlay interface {
	// Open returns the way to send from one of our locators. It is an error
	// when the address or the interface is not there.
	Open(mapcache.Local) (Path, error)
	// Receivers are the queues that data packets arrive in, the same at every
	// call; one goroutine reads each.
	Receivers() []Receiver
	// WriteDatagram sends a control datagram from the data port. It does not
	// keep d.Bytes.
	WriteDatagram(d lisp.Datagram) error
	// Close ends every Receive and closes what was opened. It is idempotent.
	Close() error
}

// Path sends from one of our locators. It is safe for concurrent use.
type Path interface {
	// Send transmits the packets in order. The error of each packet that was
	// not sent goes into its Err, and Send reports whether there was any. The
	// packets are not used after the return.
	Send([]Outgoing) (ok bool)
	// MTU is the largest outer IP packet that the first link carries, in
	// octets; 0 when it is not known.
	MTU() int
	// PathMTU is the largest outer IP packet that the whole path to a locator
	// is known to carry; 0 when it is not known. It is asked after an
	// ErrTooBig and may be slow.
	PathMTU(remote netip.Addr) int
	// Close ends sending. It is idempotent.
	Close() error
}

// Outgoing is an encapsulated packet on its way out.
type Outgoing struct {
	Bytes   []byte         // data header and inner packet, or its first octets
	Payload []byte         // the rest of the inner packet, if Bytes is not all
	Remote  netip.AddrPort // the locator it goes to
	Format  mapcache.Format
	Hash    uint32 // flow hash; packets of one flow must leave from one source port
	TTL     uint8  // outer TTL or hop limit
	TOS     uint8  // outer traffic class: DSCP and ECN
	// MayFragment lets the network fragment the outer packet (outer DF 0).
	MayFragment bool
	// NAT says that a NAT is on the way (mapcache.Locator.NAT): the packet leaves
	// from the one port that is kept for that, whatever its Hash.
	NAT bool

	entry uint32 // of the map-cache, if it is counted

	Err error // set by Path.Send: nil, ErrTooBig, or what the network said

	counter *locatorCounter
	inner   int // octets of the inner packet
	overlay *overlay
	header  lisp.DataHeader
}

// Receiver is one queue of arriving data packets.
type Receiver interface {
	// BatchSize is how many datagrams one Receive returns at most.
	BatchSize() int
	// Receive waits for datagrams, fills batch from its start and returns how
	// many there are, seldom none. Their bytes are valid until the next Receive. An error
	// ends the receiver.
	Receive(batch []Incoming) (int, error)
}

// Incoming is one or several datagrams that arrived together.
type Incoming struct {
	// Bytes is what came behind the UDP header. With a Segment size it is
	// several datagrams of one flow, with the same outer header: each Segment
	// octets long, the last one maybe shorter.
	Bytes   []byte
	Segment int
	Format  mapcache.Format // FormatVXLANGPE if it came to that port; LISP-GPE says so itself
	Remote  netip.AddrPort
	Local   netip.Addr // the outer destination; invalid when the socket does not tell
	IfIndex int        // where it arrived; 0 when the socket does not tell
	TTL     uint8      // outer TTL or hop limit; 0 when the socket does not tell
	TOS     uint8      // outer traffic class, if HasTOS
	HasTOS  bool

	buffer []byte // if not nil, Bytes is a part of it, with Headroom before each packet
}

// ErrNoUplink is the error of an UplinkSender for a packet that cannot leave by the
// interface.
var ErrNoUplink = errors.New("no locator of the family is up on the interface")

// UplinkSender is a NativeSender that can be told which uplink to use. The one of
// NewNative is one.
type UplinkSender interface {
	NativeSender
	// ForwardBy is Forward by the interface of one of our locators. The error wraps
	// ErrNoUplink, and nothing has been sent, if there is none of the packet's
	// family that is up.
	ForwardBy(ifIndex int, packet []byte) (mtu int, err error)
}

// NativeSender forwards inner packets without encapsulation, unmodified. It is
// safe for concurrent use.
type NativeSender interface {
	// SetLocals tells which uplinks there are. Packets leave by one of them
	// and never by the overlay's own device.
	SetLocals([]mapcache.Local) error
	// Forward sends one IP packet as it is. Too large a packet is not sent:
	// the error then wraps ErrTooBig, and mtu is what the link carries.
	Forward(packet []byte) (mtu int, err error)
	// Close ends sending. It is idempotent.
	Close() error
}
