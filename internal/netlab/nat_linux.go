package netlab

import (
	"encoding/binary"

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

// ifname returns an interface name as nftables compares it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:unix.IFNAMSIZ-1], name)
	return b
}
