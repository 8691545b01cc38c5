// Package mapserverd puts a Map-Server and Map-Resolver together from
// control/mapserver and control.Runner, configured by conf and seen through
// statusd, and an RTR from rtrd, or both of them. lispms is this and a command line,
// and the demo of lispmn runs the same.
package mapserverd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/rtrd"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
)

// DefaultSocket is where the status is served if the configuration says nothing.
const DefaultSocket = "/run/lispms.sock"

// Config makes a Server.
type Config struct {
	Conf *conf.MapServerNode
	// Load reads the configuration again, for Reload; nil: it cannot be.
	Load    func(context.Context) (*conf.MapServerNode, error)
	Version string       // told in the status
	Logger  *slog.Logger // nil: silent
	// SetLog changes where and how much is logged; nil: it cannot be.
	SetLog func(path string, debug int) error
}

// Server is a running Map-Server, or RTR, or both. Its methods are safe for concurrent
// use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	core    *mapserver.Server // nil: an RTR alone
	rtr     *rtrd.RTR         // nil: a Map-Server alone
	runner  *control.Runner
	status  *statusd.Server
	every   time.Duration // between two savings

	complaints complaints // only by the Runner

	addrs  []netip.Addr // of this host, at the start
	shared sharedKey

	mu   sync.Mutex          // for Reload
	conf *conf.MapServerNode // what is in force
}

// New takes the control socket and the control port. Run makes them work and
// gives them back.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	s := &Server{cfg: cfg, conf: cfg.Conf, log: cfg.Logger, started: time.Now(), every: saveInterval}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.complaints.log = s.log
	s.status, err = statusd.Listen(statusd.Config{Path: s.Socket(), Snapshot: s.Status, Actions: map[string]statusd.Action{
		statusd.ActionReload: statusd.ActionOf(func(ctx context.Context, _ statusd.Nothing) (statusd.Reloaded, error) { return s.Reload(ctx) }),
	}})
	if err != nil {
		return nil, err
	}
	undo := []func() error{s.status.Close}
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				_ = f()
			}
		}
	}()
	if s.addrs, err = ownAddresses(cfg.Conf.ControlIface); err != nil {
		return nil, err
	}
	if s.shared, err = newSharedKey(cfg.Conf, s.addrs); err != nil {
		return nil, err
	}
	if cfg.Conf.RTR != nil {
		s.rtr, err = rtrd.New(ctx, rtrd.Config{
			Conf: cfg.Conf.RTR, File: cfg.Conf.File, MapServers: s.shared.mapServers(s.addrs), Tell: s.status.Tell, Logger: cfg.Logger,
		})
		if err != nil {
			return nil, err
		}
		undo = append(undo, s.rtr.Close)
	}
	if cfg.Conf.ServesSites() || s.rtr == nil {
		if s.core, err = mapserver.New(s.coreConfig(cfg.Conf)); err != nil {
			return nil, err
		}
		s.load(s.started)
	}
	conn, err := s.listen(ctx)
	if err != nil {
		return nil, err
	}
	undo = append(undo, conn.Close)
	s.runner, err = control.NewRunner(s.runnerConfig(conn))
	if err != nil {
		return nil, err
	}
	if s.rtr != nil {
		s.rtr.Begin(s.started, s.runner)
	}
	return s, nil
}

// listen takes the control port.
func (s *Server) listen(ctx context.Context) (*control.UDPConn, error) {
	listen := control.ListenConfig{SharePort: s.rtr != nil}
	if s.core != nil {
		listen.Sockets = workers()
	}
	if s.cfg.Conf.ControlIface != "" {
		for _, a := range s.addrs {
			listen.Addrs = append(listen.Addrs, netip.AddrPortFrom(a, lisp.ControlPort))
		}
	}
	return control.Listen(ctx, listen)
}

// runnerConfig puts together what is there.
func (s *Server) runnerConfig(conn control.Conn) control.RunnerConfig {
	c := control.RunnerConfig{Conn: conn, Cores: make(map[control.Role]control.Core), Logger: s.cfg.Logger}
	if s.core != nil {
		c.Cores[control.RoleMapServer] = s.core
		c.NewWorker = func() control.Worker { return s.core.NewWorker() }
		c.AfterStep = func(now time.Time) {
			for e, ok := s.core.NextEvent(); ok; e, ok = s.core.NextEvent() {
				s.publish(now, e)
			}
		}
	}
	if s.rtr != nil {
		s.rtr.Join(&c)
	}
	return c
}

// workers is how many sockets share each address, and goroutines answer: one
// for each processor, where the system can spread peers over sockets.
func workers() int {
	if runtime.GOOS != "linux" {
		return 1
	}
	return runtime.GOMAXPROCS(0)
}

// Socket is the path of the unix socket with the status.
func (s *Server) Socket() string {
	if s.cfg.Conf.ControlSocket != "" {
		return s.cfg.Conf.ControlSocket
	}
	return DefaultSocket
}

// Events tells what happens.
func (s *Server) Events() *statusd.Server { return s.status }

// publish passes an event on, except for the periodic repetitions.
func (s *Server) publish(now time.Time, e mapserver.Event) {
	if r, ok := e.(mapserver.Registered); ok && r.Change != mapserver.ChangeNew && r.Change != mapserver.ChangeMapping {
		return
	}
	if r, ok := e.(mapserver.Refused); ok {
		s.complaints.refused(now, r)
	}
	s.status.Tell(now, e)
}

// ownAddresses lists the addresses of an interface, or of all but loopback ones.
func ownAddresses(name string) ([]netip.Addr, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("interfaces of this host: %w", err)
	}
	var found []netip.Addr
	var names []string
	for _, i := range ifs {
		names = append(names, i.Name)
		if name != "" && i.Name != name {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone in between
		}
		for _, a := range addrs {
			p, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if ip, ok := netip.AddrFromSlice(p.IP); ok && ip.IsGlobalUnicast() {
				found = append(found, ip.Unmap())
			}
		}
	}
	if name != "" && !slices.Contains(names, name) {
		return nil, fmt.Errorf("control-iface: there is no interface %s (there are: %v)", name, names)
	}
	if name != "" && len(found) == 0 {
		return nil, fmt.Errorf("control-iface: interface %s has no address", name)
	}
	return found, nil
}

func sites(c *conf.MapServerNode) []mapserver.Site {
	ss := make([]mapserver.Site, 0, len(c.Sites))
	for _, s := range c.Sites {
		site := mapserver.Site{Name: s.Name, ProxyReply: s.ProxyReply}
		for _, k := range s.Keys {
			site.Keys = append(site.Keys, lisp.Key{ID: k.ID, Algorithm: lisp.Algorithm(k.Type), Secret: []byte(k.Secret)})
		}
		for _, p := range s.Prefixes {
			site.Prefixes = append(site.Prefixes, mapserver.SitePrefix{IID: p.IID, Prefix: p.Prefix, AcceptMoreSpecifics: p.AcceptMoreSpecifics})
		}
		ss = append(ss, site)
	}
	return ss
}

func resolver(c *conf.MapServerNode) []mapserver.ResolverEntry {
	es := make([]mapserver.ResolverEntry, 0, len(c.Resolver))
	for _, e := range c.Resolver {
		entry := mapserver.ResolverEntry{IID: e.IID, Prefix: e.Prefix}
		for _, a := range e.MapServers {
			entry.MapServers = append(entry.MapServers, netip.AddrPortFrom(a, lisp.ControlPort))
		}
		es = append(es, entry)
	}
	return es
}

// Run serves until the context ends, and returns nil then; or an error when a part
// fails, which ends the others.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- s.status.Run(context.WithoutCancel(ctx)) }()
	saving, stop := context.WithCancel(ctx)
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		s.saveOften(saving)
	}()
	// What forwards ends after what controls it.
	relaying, stopRelaying := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelaying()
	relayed := make(chan error, 1)
	if s.rtr == nil {
		relayed <- nil
	} else {
		go func() {
			relayed <- s.rtr.Run(relaying)
			cancel()
		}()
	}
	err := s.runner.Run(ctx)
	stop()
	<-saved
	stopRelaying()
	err = errors.Join(err, <-relayed, s.save()) // the Runner has ended: nobody else uses the core
	_ = s.status.Close()
	return errors.Join(err, <-served)
}
