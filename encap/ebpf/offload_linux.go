package ebpf

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/mapcache"
)

// offload is the Dataplane as the Forwarder sees it: encap.Offload.
type offload Dataplane

// SetPathMTU takes a path MTU over into the kernel.
func (o *offload) SetPathMTU(remote netip.Addr, mtu int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if err := o.mirror.setPathMTU(remote, mtu); err != nil {
		o.cfg.Logger.Warn("path MTU in the kernel", "locator", remote, "err", err)
	}
}

// SendsTo returns the locator that has an address and port.
func (o *offload) SendsTo(remote netip.AddrPort) (mapcache.Locator, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.mirror
	for id := m.sources[remote.Addr()]; id != 0; id = m.state[id].next {
		if l := m.state[id].locator; l.Port == remote.Port() {
			return l, true
		}
	}
	return mapcache.Locator{}, false
}
