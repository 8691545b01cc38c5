package netlab

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// SetMark gives packets to a TCP or UDP port a firewall mark, IPv4 and IPv6: those
// that the host sends, and those that it forwards, before they are routed.
func (h *Host) SetMark(port uint16, mark uint32) {
	if h.lab.tb != nil {
		h.lab.tb.Helper()
	}
	h.lab.build(fmt.Sprintf("%s: mark port %d", h.name, port), func() error {
		return h.Do(func() error { return setMark(port, mark) })
	})
}

// setMark does it in the current thread's namespace.
func setMark(port uint16, mark uint32) error {
	c, err := nftables.New()
	if err != nil {
		return &MissingFeatureError{Feature: NAT, Err: err, Hint: "is the kernel built with CONFIG_NF_TABLES?"}
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "marks"})
	for _, chain := range []*nftables.Chain{
		// A packet of this host is routed again when its mark changes.
		{Name: "output", Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput},
		{Name: "prerouting", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting},
	} {
		chain.Table, chain.Priority = table, nftables.ChainPriorityMangle
		c.AddRule(&nftables.Rule{Table: table, Chain: c.AddChain(chain), Exprs: []expr.Any{
			// th dport port meta mark set mark
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, mark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		}})
	}
	if err := c.Flush(); err != nil {
		return &MissingFeatureError{Feature: NAT, Err: err, Hint: "is the kernel built with CONFIG_NF_TABLES_INET and CONFIG_NFT_CHAIN_ROUTE?"}
	}
	return nil
}
