package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// errNoFile says that there is nothing to read again.
var errNoFile = errors.New("this node was not made from a file")

// part is a part of the configuration.
type part struct {
	name string
	get  func(*conf.Node) any // a pointer into it
	why  string               // of one that needs a restart
}

// parts are what can change with a reload. What is not listed says nothing about
// how a node works.
var parts = []part{
	{"debug", func(c *conf.Node) any { return &c.Debug }, ""},
	{"log-file", func(c *conf.Node) any { return &c.LogFile }, ""},
	{"map-resolver", func(c *conf.Node) any { return &c.MapResolvers }, ""},
	{"map-server", func(c *conf.Node) any { return &c.MapServers }, ""},
	{"map-request-retries", func(c *conf.Node) any { return &c.MapRequestRetries }, ""},
	{"database-mapping", func(c *conf.Node) any { return &c.Mappings }, ""},
	{"pxtr locators", func(c *conf.Node) any { return &c.Locators }, ""},
	{"static-map-cache", func(c *conf.Node) any { return &c.Static }, ""},
	{"allowed-dst-eids", func(c *conf.Node) any { return &c.AllowedEIDs }, ""},
	{"proxy-etr", func(c *conf.Node) any { return &c.ProxyETRs }, ""},
	{"proxy-etr-ipv4", func(c *conf.Node) any { return &c.ProxyETRs4 }, ""},
	{"proxy-etr-ipv6", func(c *conf.Node) any { return &c.ProxyETRs6 }, ""},
	{"proxy-itrs", func(c *conf.Node) any { return &c.ProxyITRs }, ""},
	{"rloc-probing", func(c *conf.Node) any { return &c.Probing }, ""},
	{"lisp-sec", func(c *conf.Node) any { return &c.LISPSEC }, ""},
	{"uplink-mode", func(c *conf.Node) any { return &c.UplinkMode }, ""},

	{"operating-mode", func(c *conf.Node) any { return &c.Mode }, "the device is made for it"},
	{"iid", func(c *conf.Node) any { return &c.IID }, "the device is made for it"},
	{"tun device", func(c *conf.Node) any { return &c.Device }, "the device is there"},
	{"pxtr", func(c *conf.Node) any { return &c.Proxy }, "the device's routes are there"},
	{"encapsulation", func(c *conf.Node) any { return &c.Encapsulation }, "packets are under way in it"},
	{"dataplane", func(c *conf.Node) any { return &c.Dataplane }, "packets are under way by it"},
	{"graceful", func(c *conf.Node) any { return &c.Graceful }, "the device is made for it"},
	{"lan-fast-path", func(c *conf.Node) any { return &c.LANFastPath }, "packets are under way by it"},
	{"uplink-policy", func(c *conf.Node) any { return &c.Policies }, "packets are under way by it"},
	{"firewall-marks mask", func(c *conf.Node) any { return &c.MarkMask }, "the device's rules are there"},
	{"closed-network", func(c *conf.Node) any { return &c.Closed }, "its signals are under way"},
	{"control-port", func(c *conf.Node) any { return &c.ControlPort }, "the socket is open"},
	{"control-socket", func(c *conf.Node) any { return &c.ControlSocket }, "the socket is open"},
	{"state-file", func(c *conf.Node) any { return &c.StateFile }, "the node is known by what is in it"},
	{"nat-traversal", func(c *conf.Node) any { return &c.NAT }, "what was found out is in use"},
	{"ipv6-scope", func(c *conf.Node) any { return &c.SiteScope }, "the interfaces are followed by it"},
}

// Reload reads the configuration again, and puts back addresses, routes and rules
// that others have removed. What can change while traffic goes on does; what
// cannot is named and stays as it was. On an error everything stays.
func (n *Node) Reload(ctx context.Context) (statusd.Reloaded, error) {
	errRepair := n.device.Repair()
	if n.cfg.Load == nil {
		return statusd.Reloaded{}, errors.Join(errNoFile, errRepair)
	}
	next, err := n.cfg.Load(ctx)
	if err != nil {
		return statusd.Reloaded{}, errors.Join(err, errRepair)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var r statusd.Reloaded
	for _, w := range next.Warnings {
		r.Warnings = append(r.Warnings, w.String())
	}
	if errRepair != nil {
		r.Warnings = append(r.Warnings, errRepair.Error())
	}
	cfg := merge(n.conf, next, &r)
	db := database(cfg, n.seen, n.versions)
	if err := n.takeOver(ctx, cfg, func(now time.Time) error {
		return n.engine.Reconfigure(now, controlConfig(cfg, db, n.identity, n.log))
	}); err != nil {
		return statusd.Reloaded{}, err
	}
	n.database = db
	if n.cfg.SetLog != nil {
		if err := n.cfg.SetLog(cfg.LogFile, cfg.Debug); err != nil {
			r.Warnings = append(r.Warnings, err.Error())
		}
	}
	locals := n.locators(n.seen)
	if err := n.routing.Set(n.seen, addresses(locals)); err != nil {
		r.Warnings = append(r.Warnings, err.Error())
	}
	if err := n.steer(n.seen); err != nil {
		r.Warnings = append(r.Warnings, err.Error())
	}
	n.runner.SetLocals(time.Now(), locals)
	return r, nil
}

// merge returns what is in force after a reload, and says in r what that changes.
func merge(before, next *conf.Node, r *statusd.Reloaded) *conf.Node {
	cfg := *before
	cfg.Warnings = next.Warnings
	for _, p := range parts {
		a, b := reflect.ValueOf(p.get(&cfg)).Elem(), reflect.ValueOf(p.get(next)).Elem()
		lines := differences(a, b)
		why := p.why
		if p.name == "database-mapping" && (before.Mode != next.Mode || before.IID != next.IID) && !slices.Equal(eidsOf(before), eidsOf(next)) {
			why = "they belong to the operating-mode or iid"
		}
		for _, line := range lines {
			if why != "" {
				r.Restart = append(r.Restart, fmt.Sprintf("%s: %s (%s)", p.name, line, why))
			} else {
				r.Changes = append(r.Changes, p.name+": "+line)
			}
		}
		if why == "" {
			a.Set(b) // also where only line numbers differ
		}
	}
	return &cfg
}

// differences tells two values apart in words.
func differences(a, b reflect.Value) (out []string) {
	if a.Kind() != reflect.Slice {
		if x, y := describe(a), describe(b); x != y {
			return []string{x + " -> " + y}
		} else if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			return []string{"another key"}
		}
		return nil
	}
	list := func(v reflect.Value) (texts []string) {
		for i := range v.Len() {
			texts = append(texts, describe(v.Index(i)))
		}
		return texts
	}
	was, is := list(a), list(b)
	for _, t := range was {
		if !slices.Contains(is, t) {
			out = append(out, "- "+t)
		}
	}
	for i, t := range is {
		switch j := slices.Index(was, t); {
		case j < 0:
			out = append(out, "+ "+t)
		case !reflect.DeepEqual(secrets(a.Index(j)), secrets(b.Index(i))):
			out = append(out, "another key for "+t)
		}
	}
	if len(out) == 0 && !slices.Equal(was, is) {
		out = append(out, "order: "+strings.Join(is, ", "))
	}
	return out
}

// secrets is what describe does not show.
func secrets(v reflect.Value) any {
	if m, ok := reflect.TypeAssert[conf.MapServer](v); ok {
		return m.Key
	}
	return nil
}

// describe shows a value in one line, without secrets and without line numbers.
func describe(v reflect.Value) string {
	source := func(s conf.LocatorSource) string {
		from := fmt.Sprintf("%s IPv%d", s.Interface, s.Family)
		if s.Addr.IsValid() {
			from = s.Addr.String()
		}
		return fmt.Sprintf("%s %d/%d", from, s.Priority, s.Weight)
	}
	var parts []string
	switch x := v.Interface().(type) {
	case conf.MapServer:
		s := fmt.Sprintf("%v key-type %d key-id %d", x.Addr, x.Key.Type, x.Key.ID)
		if x.ProxyReply {
			s += " proxy-reply"
		}
		if x.Merge {
			s += " merge"
		}
		return s
	case conf.DatabaseMapping:
		for _, l := range x.Locators {
			parts = append(parts, source(l))
		}
		return fmt.Sprintf("%v ttl %v by %s", x.Prefix, x.TTL, strings.Join(parts, ", "))
	case conf.LocatorSource:
		return source(x)
	case conf.StaticMapping:
		for _, l := range x.RLOCs {
			parts = append(parts, fmt.Sprintf("%v %d/%d", l.Addr, l.Priority, l.Weight))
		}
		return fmt.Sprintf("%v by %s", x.Prefix, strings.Join(parts, ", "))
	case conf.RLOC:
		return fmt.Sprintf("%v %d/%d", x.Addr, x.Priority, x.Weight)
	case conf.Probing:
		switch {
		case x.Off:
			return "off"
		case x.Interval == 0:
			return "default"
		}
		return fmt.Sprintf("every %v, %d retries after %v, fast %v", x.Interval, x.Retries, x.RetryInterval, x.Fast)
	case conf.LISPSEC:
		return fmt.Sprintf("%s, %d keys, hmac %v, kdf %v, protected-paths %v, etr %v", cmp.Or(x.Mode, "off"), len(x.Keys), x.HMACs, x.KDFs, x.ProtectedPaths, !x.NoETR)
	case string:
		return fmt.Sprintf("%q", x)
	default:
		return fmt.Sprintf("%+v", x)
	}
}
