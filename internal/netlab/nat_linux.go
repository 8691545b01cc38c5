package netlab

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// NATConfig describes a source NAT. The zero value keeps the source port where
// it can: most home routers.
type NATConfig struct {
	// RandomPorts gives each flow a random port, so that two flows from one port
	// to different destinations are seen from different ports.
	RandomPorts bool
	// FullCone lets everybody in at this UDP port, who comes to the host behind
	// the NAT at the same port; zero: nobody.
	FullCone     uint16
	FullConeHost string // an IPv4 address behind the NAT
}

// Masquerade makes the host a NAT, IPv4 and IPv6: what it forwards out of the
// interface gets the interface's address, and only answers come back in: new
// flows from outside are dropped.
func (h *Host) Masquerade(out *Interface, cfg NATConfig) {
	if h.lab.tb != nil {
		h.lab.tb.Helper()
	}
	h.lab.build(h.name+": masquerade "+out.Name, func() error {
		return h.Do(func() error { return masquerade(out.Name, cfg) })
	})
}

// masquerade sets it up in the current thread's namespace.
func masquerade(out string, cfg NATConfig) error {
	c, err := nftables.New()
	if err != nil {
		return &MissingFeatureError{Feature: NAT, Err: err, Hint: "is the kernel built with CONFIG_NF_TABLES?"}
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "netlab"})
	post := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(out)},
		&expr.Masq{FullyRandom: cfg.RandomPorts},
	}})
	forward := c.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	if cfg.FullCone != 0 {
		if err := fullCone(c, table, forward, out, cfg); err != nil {
			return err
		}
	}
	// iifname out ct state new,invalid drop
	state := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW|expr.CtStateBitINVALID)
	c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(out)},
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: state, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := c.Flush(); err != nil {
		return &MissingFeatureError{Feature: NAT, Err: err, Hint: "is the kernel built with CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT and CONFIG_NFT_MASQ?"}
	}
	return nil
}

// fullCone adds the rules
//
//	iifname out meta l4proto udp udp dport PORT dnat ip to HOST   (prerouting)
//	ct status dnat accept                                         (forward, first)
func fullCone(c *nftables.Conn, table *nftables.Table, forward *nftables.Chain, out string, cfg NATConfig) error {
	host, err := netip.ParseAddr(cfg.FullConeHost)
	if err != nil || !host.Is4() {
		return fmt.Errorf("full cone: %q is no IPv4 address", cfg.FullConeHost)
	}
	pre := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: pre, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(out)},
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, cfg.FullCone)},
		&expr.Immediate{Register: 1, Data: host.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}})
	const dnat = 1 << 5 // IPS_DST_NAT
	c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATUS},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, dnat), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}})
	return nil
}

// ifname returns an interface name as nftables compares it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:unix.IFNAMSIZ-1], name)
	return b
}
