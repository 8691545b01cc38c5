package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/dataplane"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/tun"
)

// DefaultSocket is where the status is served if the configuration says nothing.
const DefaultSocket = "/run/lispmn.sock"

// Config makes a Node.
type Config struct {
	Conf *conf.Node
	// Load reads the configuration again, for Reload; nil: it cannot be.
	Load    func(context.Context) (*conf.Node, error)
	Version string       // told in the status
	Logger  *slog.Logger // nil: silent
	// SetLog changes where and how much is logged; nil: it cannot be.
	SetLog func(path string, debug int) error
}

// Node is a running mobile node. Its methods are safe for concurrent use.
type Node struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	kernel   *multihome.Netlink
	routing  *multihome.Routing
	identity identity          // only by the Runner, once New has returned
	keeper   *keeper           // of identity, once Run was called
	versions map[string]uint16 // Map-Version Numbers of the last run
	uplinks  *multihome.State  // only by the goroutine that watches, once Run was called
	refused  refusals

	mu       sync.Mutex // what follow and Reload use
	conf     *conf.Node // what is in force
	seen     []multihome.Interface
	missing  missing
	database []control.DatabaseMapping

	policy    *multihome.Policy // nil: there is none
	device    *tun.Interface
	engine    *control.Engine // only within runner.Do
	forwarder *encap.Forwarder
	fast      *ebpf.Dataplane // nil: all packets go through the forwarder, ...
	whyUser   string          // ... for this reason
	linger    time.Duration   // how long packets go on without us
	runner    *control.Runner
	status    *statusd.Server
}

// New takes everything the node needs from the system: the control socket, the
// ports, the TUN device with its routes. Run makes it work and gives it back.
func New(ctx context.Context, cfg Config) (_ *Node, err error) {
	n := &Node{cfg: cfg, conf: cfg.Conf, log: cfg.Logger, started: time.Now()}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	var undo []func() error
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				_ = f()
			}
		}
	}()

	// First of all, so that a second process changes nothing.
	n.status, err = statusd.Listen(statusd.Config{Path: n.Socket(), Snapshot: n.Status, Actions: n.actions(), Capture: n.Capture})
	if err != nil {
		return nil, permission(err)
	}
	undo = append(undo, n.status.Close)

	undo = append(undo, n.closeKernel)
	change, err := n.openKernel(ctx)
	if err != nil {
		return nil, err
	}
	if n.identity, err = loadIdentity(n.stateFile()); err != nil {
		return nil, err
	}
	n.versions = n.identity.MapVersions
	n.seen, n.database = change.Interfaces, database(cfg.Conf, change.Interfaces, n.versions)
	n.engine, err = control.New(controlConfig(cfg.Conf, n.database, n.identity, n.log))
	if err != nil {
		return nil, err
	}
	conn, err := control.Listen(ctx, control.ListenConfig{Port: cfg.Conf.ControlPort})
	if err != nil {
		return nil, err
	}
	undo = append(undo, conn.Close)
	var inKernel bool
	inKernel, n.whyUser, err = dataplane.UseKernel(cfg.Conf.Dataplane, n.log)
	if err != nil {
		return nil, err
	}
	sockets := encap.UDPConfig{VXLANGPE: format(cfg.Conf) == mapcache.FormatVXLANGPE, NoGRO: inKernel, Logger: n.log}
	if n.policy, err = newPolicy(cfg.Conf); err != nil {
		return nil, err
	}
	forwarding := encap.Config{
		View:    n.engine.Cache().View,
		Meter:   n.engine.Cache().NewMeter,
		Control: n.dataMessage,
		Policy:  steering(n.policy),
		Closed:  encap.Closed(cfg.Conf.Closed),
		// Who sets an MTU means it.
		KeepDeviceMTU: cfg.Conf.Device.MTU != 0,
		BareControl:   cfg.Conf.NAT.Variant == conf.LispersNet,
		Logger:        n.log,
	}
	closing, err := dataplane.Open(&forwarding, sockets)
	if err != nil {
		return nil, permission(err)
	}
	undo = append(undo, closing)
	n.linger = dataplane.Linger(cfg.Conf.Graceful, inKernel, ebpf.ProbePersist, n.log)
	end, err := n.createDevice(inKernel)
	if err != nil {
		return nil, permission(err)
	}
	undo = append(undo, end)
	forwarding.Overlays = []encap.Overlay{overlay(cfg.Conf, n.device)}
	if n.forwarder, err = encap.NewForwarder(forwarding); err != nil {
		return nil, err
	}
	plane := routed{n.forwarder, n.device, &n.refused}
	if inKernel {
		undo = append(undo, n.closeFastPath)
		if plane.plane, err = n.openFastPath(forwarding, sockets); err != nil {
			return nil, err
		}
	}
	n.runner, err = control.NewRunner(control.RunnerConfig{
		Conn:      conn,
		Engine:    n.engine,
		Dataplane: plane,
		OnEvent:   n.onEvent,
		Logger:    n.log,

		ShutdownTime: withdrawal(n.linger),
	})
	if err != nil {
		return nil, err
	}
	n.routing, err = multihome.NewRouting(multihome.RoutingConfig{Protocol: tun.Protocol, Keep: n.linger > 0})
	if err != nil {
		return nil, permission(err)
	}
	undo = append(undo, n.routing.Close)
	locals := n.locators(change.Interfaces)
	n.tried(n.started, uplinkRoutes, n.routing.Set(change.Interfaces, addresses(locals)))
	if err := n.steer(change.Interfaces); err != nil {
		return nil, err
	}
	n.runner.SetLocals(time.Now(), locals) // registers: not before there was anybody to answer
	return n, nil
}

// permission adds what to do when the system says no.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (lispmn needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root)", err)
	}
	return err
}

// Run makes the node work until the context ends. Then it withdraws its EIDs
// from the Map-Servers, removes the device and its routes (unless it is graceful:
// then it does neither), and returns nil; or an error when a part fails, which ends
// the others.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.keepIdentity()
	served := make(chan error, 1)
	go func() { served <- n.status.Run(context.WithoutCancel(ctx)) }()
	forwarded := make(chan error, 1)
	go func() {
		forwarded <- n.forwarder.Run(context.WithoutCancel(ctx))
		cancel() // without data plane the node must not stay registered
	}()
	watched := make(chan error, 1)
	go func() {
		watched <- multihome.Watch(ctx, n.kernel, n.uplinks, n.follow)
		cancel()
	}()
	var lans sync.WaitGroup
	lans.Go(func() { n.followLANs(ctx) })
	errControl := n.runner.Run(ctx)
	cancel()
	lans.Wait()
	if n.cfg.Conf.Closed.MapVersions {
		n.remember()
	}
	n.keeper.close()
	errWatch := <-watched
	// The control plane has left; now what it controlled, and last who tells of it.
	errClose := errors.Join(n.closeFastPath(), n.forwarder.Close(), n.routing.Close(), n.closeKernel())
	errForward := <-forwarded
	_ = n.status.Close()
	return errors.Join(errControl, errWatch, errForward, errClose, <-served)
}

// Socket is the path of the unix socket with the status.
func (n *Node) Socket() string { return socketOf(n.cfg.Conf) }

func socketOf(cfg *conf.Node) string {
	if cfg.ControlSocket != "" {
		return cfg.ControlSocket
	}
	return DefaultSocket
}
