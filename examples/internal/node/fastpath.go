package node

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/mapcache"
)

var _ plane = (*ebpf.Dataplane)(nil)

// useKernel decides where packets are forwarded, and says why not in the kernel.
func useKernel(cfg *conf.Node, log *slog.Logger) (inKernel bool, why string, err error) {
	if cfg.Dataplane == conf.DataplaneUser {
		return false, "dataplane = user", nil
	}
	err = ebpf.Probe()
	switch {
	case err == nil:
		return true, "", nil
	case cfg.Dataplane == conf.DataplaneEBPF:
		return false, "", fmt.Errorf("%w (dataplane = auto forwards in user space then)", err)
	}
	log.Info("packets are forwarded in user space", "why", err)
	return false, err.Error(), nil
}

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

// traffic is what both paths have counted.
func (n *Node) traffic() statusd.Traffic {
	if n.fast == nil {
		t := traffic(n.forwarder.Stats())
		t.UserSpace = n.whyUser
		return t
	}
	s := n.fast.Stats()
	t := traffic(s.Stats)
	t.Kernel = &statusd.KernelTraffic{
		Encapsulated: statusd.Counter(s.KernelEncapsulated), Decapsulated: statusd.Counter(s.KernelDecapsulated),
		Entries: s.Entries, AllSlow: s.AllSlow, Slow: make(map[string]uint64),
	}
	for r, c := range s.Slow {
		if c > 0 {
			t.Kernel.Slow[ebpf.SlowReason(r).String()] = c
		}
	}
	return t
}

// locatorTraffic is what went to and came from the locators of a map-cache.
func locatorTraffic(cache *mapcache.Cache) []statusd.LocatorTraffic {
	var ts []statusd.LocatorTraffic
	for l, i := range cache.Locators() {
		if i.PacketsOut+i.PacketsIn > 0 {
			ts = append(ts, statusd.LocatorTraffic{
				Addr: l.Addr,
				Out:  statusd.Counter{Packets: i.PacketsOut, Octets: i.OctetsOut},
				In:   statusd.Counter{Packets: i.PacketsIn, Octets: i.OctetsIn},
			})
		}
	}
	return ts
}
