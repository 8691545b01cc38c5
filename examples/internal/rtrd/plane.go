package rtrd

import (
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/dataplane"
	"github.com/xtrkit/xtrkit/lisp"
)

// openDataplane makes the data plane, in the kernel where that can be.
func (r *RTR) openDataplane() error {
	inKernel, why, err := dataplane.UseKernel(r.cfg.Conf.Dataplane, r.log)
	if err != nil {
		return err
	}
	r.whyUser = why
	sockets := encap.UDPConfig{NATPort: natPort(&r.cfg), NoGRO: inKernel, Logger: r.log}
	forwarding := encap.Config{
		Overlays: overlays(r.cfg.Conf.IIDs), View: r.engine.Cache().View, Meter: r.engine.Cache().NewMeter, Logger: r.log,
		Control: func(d lisp.Datagram) { r.runner.HandleData(d) },
	}
	closing, err := dataplane.Open(&forwarding, sockets)
	if err != nil {
		return permission(err)
	}
	if r.forwarder, err = encap.NewForwarder(forwarding); err != nil {
		_ = closing()
		return err
	}
	linger := dataplane.Linger(r.cfg.Conf.Graceful, inKernel, ebpf.ProbePersist, r.log)
	if !inKernel {
		dataplane.EndKernel(r.log)
		return nil
	}
	r.fast, err = ebpf.New(ebpf.Config{
		Forwarder: r.forwarder, Encap: forwarding, UDP: sockets, Cache: r.engine.Cache(), Persist: linger > 0, Linger: linger, Logger: r.log,
	})
	if err != nil {
		return permission(err)
	}
	r.log.Info("packets are forwarded in the kernel")
	return r.inherit(time.Now(), r.fast.Carried())
}

// overlays are those of the instances that are relayed.
func overlays(iids []uint32) (os []encap.Overlay) {
	for _, iid := range iids {
		os = append(os, encap.Overlay{InstanceID: iid, Relay: true})
	}
	return os
}

// plane is the data plane that knows of all packets.
func (r *RTR) plane() control.Dataplane {
	if r.fast != nil {
		return r.fast
	}
	return r.forwarder
}
