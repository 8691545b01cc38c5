// Package rtrd is the part of lispms that makes it a Re-encapsulating Tunnel Router for
// nodes behind NATs, put together from natt, control and encap, and configured by conf:
// if its file says operating-mode = RTR. A Map-Server may be in the same process.
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
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/natt"
)

// Config makes an RTR.
type Config struct {
	Conf *conf.RTR
	File string // that it is from
	// MapServers are those of the same process, which need not be configured.
	MapServers []natt.RTRMapServer
	// Tell shows an event, which is put into words only if somebody looks: anybody's
	// packets make events.
	Tell   func(at time.Time, e fmt.Stringer)
	Logger *slog.Logger // nil: silent
}

// RTR is an RTR behind the control port of somebody else. Status and what Join adds are
// for the loop of its Runner; the other methods are safe for concurrent use.
type RTR struct {
	cfg Config
	log *slog.Logger

	kernel    *multihome.Netlink
	uplinks   *multihome.State // only by the goroutine that watches, once Run was called
	core      *natt.RTR        // this and engine only on the loop
	engine    *control.Engine
	forwarder *encap.Forwarder
	fast      *ebpf.Dataplane // nil: all packets go through the forwarder
	whyUser   string          // why that is so
	runner    *control.Runner
	locals    []mapcache.Local // at the start
}

// New takes what the RTR needs from the system, but for the control port. Join and
// Begin are to follow, then Run, which gives it back, or Close instead.
func New(ctx context.Context, cfg Config) (_ *RTR, err error) {
	r := &RTR{cfg: cfg, log: cfg.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.cfg.Tell == nil {
		r.cfg.Tell = func(time.Time, fmt.Stringer) {}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	change, err := r.openKernel(ctx)
	if err != nil {
		return nil, err
	}
	if r.locals = r.locators(change.Interfaces); len(r.locals) == 0 {
		return nil, errors.New("an RTR needs an address: name interfaces that have one in rtr-ifaces")
	}
	if r.core, err = natt.NewRTR(coreConfig(&cfg, r.log)); err != nil {
		return nil, err
	}
	if r.engine, err = control.New(control.Config{MapResolvers: resolvers(&cfg, r.locals), Logger: r.log}); err != nil {
		return nil, err
	}
	return r, r.openDataplane()
}

// Close gives back what New took. It may be called more than once, and after Run.
func (r *RTR) Close() error {
	var errs []error
	if r.fast != nil {
		errs = append(errs, r.fast.Close())
	}
	if r.forwarder != nil {
		errs = append(errs, r.forwarder.Close())
	}
	return errors.Join(append(errs, r.closeKernel())...)
}

func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (an RTR needs CAP_NET_RAW: run it as root)", err)
	}
	return err
}

// Addrs are the addresses that nodes reached the RTR by when it was made.
func (r *RTR) Addrs() []netip.Addr {
	as := make([]netip.Addr, len(r.locals))
	for i, l := range r.locals {
		as[i] = l.Addr
	}
	return as
}

// natPort is what packets to nodes behind NATs leave from. xTRs of lispers.net
// open their NAT for the data port.
func natPort(cfg *Config) uint16 {
	if cfg.Conf.LispersNet && len(cfg.Conf.MapServers)+len(cfg.MapServers) == 0 {
		return lisp.DataPort
	}
	return lisp.ControlPort
}

func coreConfig(cfg *Config, log *slog.Logger) natt.RTRConfig {
	out := natt.RTRConfig{RequireKey: cfg.Conf.RequireKey, LispersNet: cfg.Conf.LispersNet, Logger: log}
	for _, s := range cfg.Conf.MapServers {
		ms := natt.RTRMapServer{Addr: s.Addr}
		if s.Key.Secret != "" {
			ms.Key = lisp.Key{ID: s.Key.ID, Algorithm: lisp.Algorithm(s.Key.Type), Secret: []byte(s.Key.Secret)}
		}
		if s.Variant == conf.OldDraft {
			ms.Variant = natt.Old
		}
		out.MapServers = append(out.MapServers, ms)
	}
	out.MapServers = append(out.MapServers, cfg.MapServers...)
	return out
}

// resolvers are who is asked for mappings: with a Map-Server in the same process, that
// one, unless the file says otherwise.
func resolvers(cfg *Config, locals []mapcache.Local) []netip.AddrPort {
	as := cfg.Conf.MapResolvers
	if len(as) == 0 && len(cfg.MapServers) > 0 {
		as = []netip.Addr{locals[0].Addr}
	}
	out := make([]netip.AddrPort, 0, len(as))
	for _, a := range as {
		out = append(out, netip.AddrPortFrom(a, lisp.ControlPort))
	}
	return out
}

// Join adds the RTR to what a Runner is made of, whose Conn has to share its port
// (control.ListenConfig.SharePort). Begin is to follow when that is made.
func (r *RTR) Join(c *control.RunnerConfig) {
	if c.Cores == nil {
		c.Cores = make(map[control.Role]control.Core)
	}
	c.Cores[control.RoleRTR], c.Engine, c.Dataplane = r.core, r.engine, r.plane()
	c.OnEvent = func(e control.Event) { r.cfg.Tell(e.When(), e) }
	after := c.AfterStep
	c.AfterStep = func(now time.Time) {
		if after != nil {
			after(now)
		}
		for e, ok := r.core.NextEvent(); ok; e, ok = r.core.NextEvent() {
			r.cfg.Tell(now, e)
		}
	}
}

// Begin says whose loop it is.
func (r *RTR) Begin(now time.Time, runner *control.Runner) {
	r.runner = runner
	runner.SetLocals(now, slices.Clone(r.locals))
}

// Run relays and follows the interfaces until the context ends, and returns nil then;
// or an error when a part fails. The Runner has to run for as long.
func (r *RTR) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	forwarded := make(chan error, 1)
	go func() {
		forwarded <- r.forwarder.Run(context.WithoutCancel(ctx))
		cancel()
	}()
	errWatch := multihome.Watch(ctx, r.kernel, r.uplinks, func(now time.Time, c multihome.Change) error {
		r.runner.SetLocals(now, r.locators(c.Interfaces))
		return nil
	})
	errClose := r.Close()
	return errors.Join(errWatch, errClose, <-forwarded)
}
