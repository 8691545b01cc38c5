package node

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

// deviceConfig says in the terms of package tun what the file says.
func deviceConfig(cfg *conf.Node, log *slog.Logger) tun.Config {
	return tun.Config{
		Name: cfg.Device.Name, MTU: cfg.Device.MTU, Table: cfg.Device.Table, EIDs: eidsOf(cfg),
		Router: cfg.Mode != conf.ModeMN, Proxy: len(cfg.Proxy.ITR) > 0, Destinations: cfg.Proxy.ITR, MarkMask: cfg.MarkMask, Logger: log,
	}
}

// overlay is what the device is for.
func overlay(cfg *conf.Node, device encap.Device) encap.Overlay {
	return encap.Overlay{
		InstanceID: cfg.IID, Device: device, EIDs: eidsOf(cfg), ProxyITR: len(cfg.Proxy.ITR) > 0, ProxyETR: cfg.Proxy.ETR,
	}
}

func eidsOf(cfg *conf.Node) []netip.Prefix {
	eids := make([]netip.Prefix, 0, len(cfg.Mappings))
	for _, m := range cfg.Mappings {
		eids = append(eids, m.Prefix)
	}
	return eids
}

// plane is a data plane with all that control can use.
type plane interface {
	control.SignalPlane
	control.PairPlane
}

// routed is a data plane that tells the device too which addresses are locators: what
// they send must not be routed into it.
type routed struct {
	plane
	device  *tun.Interface
	refused *refusals
}

var _ plane = routed{}

// SetLocals replaces the locators: of the routing rules first, so that nothing
// that is encapsulated comes back.
func (d routed) SetLocals(ls []mapcache.Local) error {
	err := d.device.SetLocals(addresses(ls))
	if err == nil {
		err = d.plane.SetLocals(ls)
	}
	// The Runner logs it.
	d.refused.note(time.Now(), "locators", err, slog.New(slog.DiscardHandler))
	return err
}

func addresses(ls []mapcache.Local) []netip.Addr {
	addrs := make([]netip.Addr, len(ls))
	for i, l := range ls {
		addrs[i] = l.Addr
	}
	return addrs
}
