package node

import (
	"slices"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

var _ plane = (*ebpf.Dataplane)(nil)

// openFastPath puts the kernel's data plane before the Forwarder.
func (n *Node) openFastPath(forwarding encap.Config, sockets encap.UDPConfig) (plane, error) {
	var err error
	n.fast, err = ebpf.New(ebpf.Config{
		Forwarder: n.forwarder, Encap: forwarding, UDP: sockets, Cache: n.engine.Cache(),
		MarkMask:      n.conf.MarkMask,
		PolicyIsMarks: !slices.ContainsFunc(n.conf.Policies, func(p conf.UplinkPolicy) bool { return !p.ByMark }),
		Persist:       n.linger > 0,
		Linger:        n.linger,
		Logger:        n.log,
	})
	if err != nil {
		return nil, permission(err)
	}
	n.log.Info("packets are forwarded in the kernel")
	if n.linger == 0 {
		return n.fast, nil
	}
	return lingering{n.fast, n.device, n.log}, n.inherit()
}

func (n *Node) closeFastPath() error {
	if n.fast == nil {
		return nil
	}
	return n.fast.Close()
}

// plane is the data plane that knows of all packets.
func (n *Node) plane() plane {
	if n.fast != nil {
		return n.fast
	}
	return n.forwarder
}
