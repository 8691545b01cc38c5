package encap

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// What is in this file is for a data plane that takes packets off the hands of a
// Forwarder, such as package ebpf, and has to send as it does.

// LocalPath is one of our own locators and what the Forwarder knows of the way by
// which packets leave from it.
type LocalPath struct {
	mapcache.Local // Up is false too if it could not be opened
	// MTU is the largest outer packet, in octets, that its link carries.
	MTU int
	// Ports are the source ports of packets in the LISP format: that of a flow is
	// Ports[hash*0x9e3779b1*len>>32], where the first product has 32 bits and the
	// second 64. Nil if the Path does not tell.
	Ports []uint16
	// NATPort is that of packets to locators behind a NAT (mapcache.Locator.NAT).
	NATPort uint16
}

// portsPath is a Path that tells its source ports.
type portsPath interface {
	SourcePorts() []uint16
	NATSourcePort() uint16
}

// LocalPaths returns our own locators as the last SetLocals left them.
func (f *Forwarder) LocalPaths() []LocalPath {
	t := f.locals.Load()
	ways := make([]LocalPath, len(t.locals))
	for i, l := range t.locals {
		ways[i] = LocalPath{Local: l, MTU: t.mtus[i]}
		if p, ok := t.paths[i].(portsPath); ok {
			ways[i].Ports, ways[i].NATPort = p.SourcePorts(), p.NATSourcePort()
		}
	}
	return ways
}

// Offload is a data plane that takes packets off the hands of a Forwarder. Its
// methods are called by several goroutines; they must not call the Forwarder.
type Offload interface {
	// SetPathMTU is told of each path MTU that is learned, in octets, and of 0 when
	// it is forgotten.
	SetPathMTU(remote netip.Addr, mtu int)
	// SendsTo returns the locator that packets go to which are sent to an address
	// and port, for ICMP errors about them, and false if there is none.
	SendsTo(remote netip.AddrPort) (mapcache.Locator, bool)
}

// SetOffload has the Forwarder tell o what the network says about outer packets,
// those of o too. It has to be called before Run.
func (f *Forwarder) SetOffload(o Offload) {
	f.paths.offload, f.offload = o, o
}

// DataHeader returns what stands in front of the packets of an instance in a
// format, for an inner packet of IPv4 or IPv6.
func DataHeader(iid uint32, f mapcache.Format, v6 bool) [8]byte {
	var b [8]byte
	headers := dataHeaders(iid)
	family := 0
	if v6 {
		family = 1
	}
	lisp.PutDataHeader(b[:], headers[f][family])
	return b
}
