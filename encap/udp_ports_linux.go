package encap

import "net"

// SourcePorts returns the source ports of packets in the LISP format, by flow as
// sourcePort chooses.
func (p *udpPath) SourcePorts() []uint16 {
	pool := &p.computed
	if p.zeroLISP {
		pool = &p.zero
	}
	ports := make([]uint16, len(pool.flows))
	for i, s := range pool.flows {
		ports[i] = s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	return ports
}

// NATSourcePort returns the source port of packets to locators behind a NAT.
func (p *udpPath) NATSourcePort() uint16 { return p.natPort }
