package mapserverd

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// errNoFile says that there is nothing to read again.
var errNoFile = errors.New("this server was not made from a file")

// Reload reads the configuration again. Sites, their keys and EID-Prefixes, and whom
// Map-Requests are forwarded to change at once, and what is registered stays if its
// EID-Prefix is still its site's; the rest is named and stays as it was. On an error all
// does.
func (s *Server) Reload(ctx context.Context) (statusd.Reloaded, error) {
	if s.cfg.Load == nil {
		return statusd.Reloaded{}, errNoFile
	}
	next, err := s.cfg.Load(ctx)
	if err != nil {
		return statusd.Reloaded{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg, r := merge(s.conf, next, s.core != nil)
	for _, w := range next.Warnings {
		r.Warnings = append(r.Warnings, w.String())
	}
	if now, err := ownAddresses(s.cfg.Conf.ControlIface); err == nil { // else it has none at the moment
		r.Restart = append(r.Restart, s.shared.moved(s.addrs, now)...)
	}
	if s.core != nil {
		if _, err := newSharedKey(cfg, s.addrs); err != nil {
			return statusd.Reloaded{}, err
		}
		var failed error
		if err := s.runner.Do(ctx, func(now time.Time) { failed = s.core.Reconfigure(now, s.coreConfig(cfg)) }); err != nil {
			return statusd.Reloaded{}, err
		}
		if failed != nil {
			return statusd.Reloaded{}, failed
		}
	}
	s.conf = cfg
	if s.cfg.SetLog != nil {
		if err := s.cfg.SetLog(cfg.LogFile, cfg.Debug); err != nil {
			r.Warnings = append(r.Warnings, err.Error())
		}
	}
	return r, nil
}

// coreConfig is a file in the terms of package mapserver.
func (s *Server) coreConfig(c *conf.MapServerNode) mapserver.Config {
	nat := natConfig(&c.NAT)
	nat.RTRs = append(nat.RTRs, s.shared.rtrs(s.rtr)...)
	return mapserver.Config{
		Sites: sites(c), Resolver: resolver(c), LISPSEC: lispSec(&c.LISPSEC), Locals: s.addrs, NAT: nat, Logger: s.cfg.Logger,
	}
}

// merge returns what is in force after a reload, and what that changes. serves says
// that there is a Map-Server.
func merge(before, next *conf.MapServerNode, serves bool) (*conf.MapServerNode, statusd.Reloaded) {
	cfg := *next
	var r statusd.Reloaded
	changed := func(name string, lines ...string) {
		for _, l := range lines {
			r.Changes = append(r.Changes, name+": "+l)
		}
	}
	stays := func(name, why string, was, is any) {
		if !reflect.DeepEqual(was, is) {
			r.Restart = append(r.Restart, fmt.Sprintf("%s: it is another one (%s)", name, why))
		}
	}
	if before.Debug != next.Debug {
		changed("debug", fmt.Sprintf("%d -> %d", before.Debug, next.Debug))
	}
	if before.LogFile != next.LogFile {
		changed("log-file", fmt.Sprintf("%q -> %q", before.LogFile, next.LogFile))
	}
	if serves {
		changed("lisp-site", siteChanges(before.Sites, next.Sites)...)
		changed("resolver-entry", listChanges(before.Resolver, next.Resolver, func(e conf.ResolverEntry) string {
			return fmt.Sprintf("%s by %v", prefixText(e.IID, e.Prefix.String()), e.MapServers)
		})...)
		changed("ms-rtr-node", listChanges(before.NAT.RTRs, next.NAT.RTRs, func(n conf.RTRNode) string { return fmt.Sprintf("%s at %v", n.Name, n.Addr) })...)
		if len(before.NAT.RTRs) == len(next.NAT.RTRs) && before.NAT.TTL != next.NAT.TTL || before.NAT.LispersNet != next.NAT.LispersNet {
			changed("nat-traversal", "other terms")
		}
		if !reflect.DeepEqual(before.LISPSEC, next.LISPSEC) {
			changed("lisp-sec", "other keys or paths")
		}
	} else if next.ServesSites() {
		r.Restart = append(r.Restart, "lisp-site: there are some (this is an RTR alone)")
		cfg.Sites, cfg.Resolver = nil, nil
	}
	if (before.RTR == nil) != (next.RTR == nil) {
		r.Restart = append(r.Restart, "operating-mode: it is another one (the sockets are made for it)")
	} else if before.RTR != nil {
		stays("rtr-ifaces", "its locators are in use", lines(before.RTR.Locators), lines(next.RTR.Locators))
		a, b := *before.RTR, *next.RTR
		a.Locators, b.Locators = nil, nil
		stays("rtr-ms-node, rtr-iids, map-resolver, dataplane or graceful", "packets are under way by it", a, b)
	}
	stays("control-iface", "the sockets are open", before.ControlIface, next.ControlIface)
	stays("control-socket", "the socket is open", before.ControlSocket, next.ControlSocket)
	stays("state-file", "registrations are kept in it", before.StateFile, next.StateFile)
	cfg.RTR, cfg.ControlIface, cfg.ControlSocket, cfg.StateFile = before.RTR, before.ControlIface, before.ControlSocket, before.StateFile
	return &cfg, r
}

// lines are locators without the lines of the file that they are from.
func lines(ls []conf.LocatorSource) []conf.LocatorSource {
	ls = slices.Clone(ls)
	for i := range ls {
		ls[i].Line = 0
	}
	return ls
}

func prefixText(iid uint32, prefix string) string {
	if iid == 0 {
		return prefix
	}
	return fmt.Sprintf("[%d]%s", iid, prefix)
}

// siteChanges tells sites apart, by their names.
func siteChanges(before, next []conf.Site) (out []string) {
	prefixes := func(s conf.Site) (ps []string) {
		for _, p := range s.Prefixes {
			text := prefixText(p.IID, p.Prefix.String())
			if p.AcceptMoreSpecifics {
				text += " and parts of it"
			}
			ps = append(ps, text)
		}
		return ps
	}
	named := func(ss []conf.Site, name string) int {
		return slices.IndexFunc(ss, func(s conf.Site) bool { return s.Name == name })
	}
	for _, was := range before {
		if named(next, was.Name) < 0 {
			out = append(out, fmt.Sprintf("- %s: %s", was.Name, strings.Join(prefixes(was), ", ")))
		}
	}
	for _, is := range next {
		i := named(before, is.Name)
		if i < 0 {
			out = append(out, fmt.Sprintf("+ %s: %s", is.Name, strings.Join(prefixes(is), ", ")))
			continue
		}
		was := before[i]
		for _, l := range listChanges(prefixes(was), prefixes(is), func(s string) string { return s }) {
			out = append(out, is.Name+": "+l)
		}
		if !slices.Equal(was.Keys, is.Keys) {
			out = append(out, is.Name+": other keys")
		}
		if was.ProxyReply != is.ProxyReply {
			out = append(out, fmt.Sprintf("%s: proxy-reply %v -> %v", is.Name, was.ProxyReply, is.ProxyReply))
		}
	}
	return out
}

// listChanges tells lists apart by the text of what is in them, and says where that is
// the same and the rest, which is secret, is not.
func listChanges[T any](before, next []T, text func(T) string) (out []string) {
	find := func(in []T, what string) int {
		return slices.IndexFunc(in, func(v T) bool { return text(v) == what })
	}
	for _, was := range before {
		if find(next, text(was)) < 0 {
			out = append(out, "- "+text(was))
		}
	}
	for _, is := range next {
		switch i := find(before, text(is)); {
		case i < 0:
			out = append(out, "+ "+text(is))
		case !reflect.DeepEqual(before[i], is):
			out = append(out, "another key for "+text(is))
		}
	}
	return out
}
