// Package rtrd puts a Re-encapsulating Tunnel Router for nodes behind NATs
// together from natt, control and encap, configured by conf and seen through
// statusd. lispms is this if its file says operating-mode = RTR.
package rtrd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/natt"
)

// DefaultSocket is where the status is served if the configuration says nothing.
const DefaultSocket = "/run/lispms.sock"

// Config makes an RTR.
type Config struct {
	Conf    *conf.MapServerNode // with RTR
	Version string              // told in the status
	Logger  *slog.Logger        // nil: silent
}

// RTR is a running RTR. Its methods are safe for concurrent use.
type RTR struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	kernel    *multihome.Netlink
	uplinks   *multihome.State // only by the goroutine that watches, once Run was called
	core      *natt.RTR        // this and engine only within runner.Do
	engine    *control.Engine
	forwarder *encap.Forwarder
	runner    *control.Runner
	status    *statusd.Server
}

// New takes the control socket and the ports. Run makes them work and gives them
// back.
func New(ctx context.Context, cfg Config) (_ *RTR, err error) {
	r := &RTR{cfg: cfg, log: cfg.Logger, started: time.Now()}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	var undo []func() error
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				_ = f()
			}
		}
	}()
	if r.status, err = statusd.Listen(statusd.Config{Path: r.Socket(), Snapshot: r.Status}); err != nil {
		return nil, err
	}
	undo = append(undo, r.status.Close)
	undo = append(undo, r.closeKernel)
	change, err := r.openKernel(ctx)
	if err != nil {
		return nil, err
	}
	if r.core, err = natt.NewRTR(coreConfig(cfg.Conf.RTR, r.log)); err != nil {
		return nil, err
	}
	resolvers := make([]netip.AddrPort, 0, len(cfg.Conf.RTR.MapResolvers))
	for _, a := range cfg.Conf.RTR.MapResolvers {
		resolvers = append(resolvers, netip.AddrPortFrom(a, lisp.ControlPort))
	}
	if r.engine, err = control.New(control.Config{MapResolvers: resolvers, Logger: r.log}); err != nil {
		return nil, err
	}
	conn, err := control.Listen(ctx, control.ListenConfig{SharePort: true})
	if err != nil {
		return nil, err
	}
	undo = append(undo, conn.Close)
	underlay, err := encap.NewUDP(encap.UDPConfig{NATPort: natPort(cfg.Conf.RTR), Logger: r.log})
	if err != nil {
		return nil, err
	}
	undo = append(undo, underlay.Close)
	native, err := encap.NewNative()
	if err != nil {
		return nil, err
	}
	undo = append(undo, native.Close)
	icmp, err := encap.NewICMP()
	if err != nil {
		return nil, permission(err)
	}
	for _, c := range icmp {
		undo = append(undo, c.Close)
	}
	var overlays []encap.Overlay
	for _, iid := range cfg.Conf.RTR.IIDs {
		overlays = append(overlays, encap.Overlay{InstanceID: iid, Relay: true})
	}
	r.forwarder, err = encap.NewForwarder(encap.Config{
		Overlays: overlays, View: r.engine.Cache().View, Meter: r.engine.Cache().NewMeter, Underlay: underlay, Native: native, ICMP: icmp, Logger: r.log,
		Control: func(d lisp.Datagram) { r.runner.HandleData(d) },
	})
	if err != nil {
		return nil, err
	}
	r.runner, err = control.NewRunner(control.RunnerConfig{
		Conn: conn, Engine: r.engine, Cores: map[control.Role]control.Core{control.RoleRTR: r.core},
		Dataplane: r.forwarder, OnEvent: r.onEvent, AfterStep: r.publish, Logger: r.log,
	})
	if err != nil {
		return nil, err
	}
	locals := r.locators(change.Interfaces)
	if len(locals) == 0 {
		return nil, errors.New("an RTR needs an address: name interfaces that have one in rtr-ifaces")
	}
	r.runner.SetLocals(r.started, locals)
	return r, nil
}

func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (an RTR needs CAP_NET_RAW: run it as root)", err)
	}
	return err
}

// natPort is what packets to nodes behind NATs leave from. xTRs of lispers.net
// open their NAT for the data port.
func natPort(c *conf.RTR) uint16 {
	if c.LispersNet && len(c.MapServers) == 0 {
		return lisp.DataPort
	}
	return lisp.ControlPort
}

func coreConfig(c *conf.RTR, log *slog.Logger) natt.RTRConfig {
	out := natt.RTRConfig{RequireKey: c.RequireKey, LispersNet: c.LispersNet, Logger: log}
	for _, s := range c.MapServers {
		ms := natt.RTRMapServer{Addr: s.Addr}
		if s.Key.Secret != "" {
			ms.Key = lisp.Key{ID: s.Key.ID, Algorithm: lisp.Algorithm(s.Key.Type), Secret: []byte(s.Key.Secret)}
		}
		if s.Variant == conf.OldDraft {
			ms.Variant = natt.Old
		}
		out.MapServers = append(out.MapServers, ms)
	}
	return out
}

// onEvent shows what happens.
func (r *RTR) onEvent(e control.Event) {
	r.status.Publish(statusd.Describe(e.When(), e.String(), e))
}

// publish shows the events of the machine.
func (r *RTR) publish(now time.Time) {
	for e, ok := r.core.NextEvent(); ok; e, ok = r.core.NextEvent() {
		r.status.Publish(statusd.Describe(now, e.String(), e))
	}
}

// Run relays until the context ends, and returns nil then; or an error when a
// part fails, which ends the others.
func (r *RTR) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- r.status.Run(context.WithoutCancel(ctx)) }()
	forwarded := make(chan error, 1)
	go func() {
		forwarded <- r.forwarder.Run(context.WithoutCancel(ctx))
		cancel()
	}()
	watched := make(chan error, 1)
	go func() {
		watched <- multihome.Watch(ctx, r.kernel, r.uplinks, func(now time.Time, c multihome.Change) error {
			r.runner.SetLocals(now, r.locators(c.Interfaces))
			return nil
		})
		cancel()
	}()
	errControl := r.runner.Run(ctx)
	cancel()
	errWatch := <-watched
	errClose := errors.Join(r.forwarder.Close(), r.closeKernel())
	errForward := <-forwarded
	_ = r.status.Close()
	return errors.Join(errControl, errWatch, errForward, errClose, <-served)
}

// Socket is the path of the unix socket with the status.
func (r *RTR) Socket() string {
	if r.cfg.Conf.ControlSocket != "" {
		return r.cfg.Conf.ControlSocket
	}
	return DefaultSocket
}

// Events tells what happens.
func (r *RTR) Events() *statusd.Server { return r.status }
