// Package mapserverd puts a Map-Server and Map-Resolver together from
// control/mapserver and control.Runner, configured by conf and seen through
// statusd. lispms is this and a command line, and the demo of lispmn runs the same.
package mapserverd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
)

// DefaultSocket is where the status is served if the configuration says nothing.
const DefaultSocket = "/run/lispms.sock"

// Config makes a Server.
type Config struct {
	Conf    *conf.MapServerNode
	Version string       // told in the status
	Logger  *slog.Logger // nil: silent
}

// Server is a running Map-Server. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	core    *mapserver.Server
	runner  *control.Runner
	status  *statusd.Server
	every   time.Duration // between two savings

	complaints complaints // only by the Runner
}

// New takes the control socket and the control port. Run makes them work and
// gives them back.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	s := &Server{cfg: cfg, log: cfg.Logger, started: time.Now(), every: saveInterval}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.complaints.log = s.log
	s.status, err = statusd.Listen(statusd.Config{Path: s.Socket(), Snapshot: s.Status})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.status.Close()
		}
	}()
	addrs, err := ownAddresses(cfg.Conf.ControlIface)
	if err != nil {
		return nil, err
	}
	s.core, err = mapserver.New(mapserver.Config{
		Sites: sites(cfg.Conf), Resolver: resolver(cfg.Conf), LISPSEC: lispSec(&cfg.Conf.LISPSEC), Locals: addrs, NAT: natConfig(&cfg.Conf.NAT), Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.load(s.started)
	listen := control.ListenConfig{Sockets: workers()}
	if cfg.Conf.ControlIface != "" {
		for _, a := range addrs {
			listen.Addrs = append(listen.Addrs, netip.AddrPortFrom(a, lisp.ControlPort))
		}
	}
	conn, err := control.Listen(ctx, listen)
	if err != nil {
		return nil, err
	}
	s.runner, err = control.NewRunner(control.RunnerConfig{
		Conn:      conn,
		Cores:     map[control.Role]control.Core{control.RoleMapServer: s.core},
		NewWorker: func() control.Worker { return s.core.NewWorker() },
		AfterStep: func(now time.Time) {
			for e, ok := s.core.NextEvent(); ok; e, ok = s.core.NextEvent() {
				s.publish(now, e)
			}
		},
		Logger: cfg.Logger,
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
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
	s.status.Publish(statusd.Describe(now, e.String(), e))
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

// Run serves until the context ends, and returns nil then.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.status.Run(context.WithoutCancel(ctx)) }()
	saving, stop := context.WithCancel(ctx)
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		s.saveOften(saving)
	}()
	err := s.runner.Run(ctx)
	stop()
	<-saved
	err = errors.Join(err, s.save()) // the Runner has ended: nobody else uses the core
	_ = s.status.Close()
	return errors.Join(err, <-served)
}

// Status returns the present state of the server.
func (s *Server) Status(context.Context) (statusd.Status, error) {
	now := time.Now()
	m := &statusd.MapServer{Refused: map[string]uint64{}}
	st := statusd.Status{Program: "lispms", Version: s.cfg.Version, PID: os.Getpid(), Started: s.started, Time: now, MapServer: m}
	for _, site := range s.core.Sites(now) {
		out := statusd.Site{Name: site.Name}
		for _, p := range site.Prefixes {
			out.Prefixes = append(out.Prefixes, p.Prefix.String())
		}
		m.Sites = append(m.Sites, out)
	}
	for _, r := range s.core.Registrations(now) {
		m.Registrations = append(m.Registrations, entry(r))
	}
	for _, e := range s.core.History() {
		m.History = append(m.History, statusd.Past{Time: e.Time, Text: e.Event.String()})
	}
	for _, u := range s.core.MapServers() {
		m.MapServers = append(m.MapServers, statusd.MapServerHealth{Addr: u.Addr, Health: u.Health.String()})
	}
	c := s.core.Stats()
	m.Counters = map[string]uint64{
		"map-registers": c.Registers, "accepted": c.Accepted, "refreshes": c.Refreshes, "duplicates": c.Duplicates,
		"map-notifies": c.Notifies, "map-requests": c.Requests, "map-replies": c.Replies, "negative-replies": c.Negatives, "forwarded": c.Forwards,
		"moves": c.Moves, "unsolicited-map-notifies": c.UnsolicitedNotifies, "map-notify-acks": c.NotifyAcks, "map-notifies-unanswered": c.NotifiesUnanswered,
	}
	for r, n := range c.Dropped {
		if n > 0 {
			m.Refused[mapserver.Reason(r).String()] = n
		}
	}
	return st, nil
}

func entry(r mapserver.Registration) statusd.SiteEntry {
	e := statusd.SiteEntry{Site: r.Site, IID: r.IID, Prefix: r.EID}
	for _, x := range r.XTRs {
		if x.Current && !e.From.IsValid() {
			e.From, e.Expires = x.From, x.Expiry
		}
	}
	for _, l := range r.RLOCs {
		ip, ok := l.RLOC.IP()
		if !ok {
			continue
		}
		out := statusd.RLOC{Addr: ip, Priority: l.Priority, Weight: l.Weight, State: "up"}
		if !l.Reachable {
			out.State = "down"
		}
		e.RLOCs = append(e.RLOCs, out)
	}
	return e
}
