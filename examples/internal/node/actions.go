package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/dataplane"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// actions are what a node can be asked to do at its socket.
func (n *Node) actions() map[string]statusd.Action {
	return map[string]statusd.Action{
		statusd.ActionReload: statusd.ActionOf(func(ctx context.Context, _ statusd.Nothing) (statusd.Reloaded, error) { return n.Reload(ctx) }),
		statusd.ActionFlush:  statusd.ActionOf(n.flush),
		statusd.ActionAdd:    statusd.ActionOf(n.add),
		statusd.ActionDel:    statusd.ActionOf(n.del),
		statusd.ActionProbe:  statusd.ActionOf(n.probe),
		statusd.ActionLookup: statusd.ActionOf(n.lookup),
		statusd.ActionTrace:  statusd.ActionOf(n.trace),
	}
}

// flush removes what was learned. What is configured stays.
func (n *Node) flush(ctx context.Context, s statusd.Selection) (c statusd.Count, err error) {
	err = n.runner.Do(ctx, func(now time.Time) {
		var gone []mapcache.Key
		for e := range n.engine.Cache().All() {
			if e.Origin != mapcache.OriginStatic && (!s.Within.IsValid() || s.Within.Bits() <= e.Prefix.Bits() && s.Within.Contains(e.Prefix.Addr())) {
				gone = append(gone, e.Key)
			}
		}
		for _, k := range gone {
			n.engine.Cache().Remove(now, k)
		}
		c.Count = len(gone)
	})
	return c, err
}

// Errors of add and del.
var (
	errTable  = errors.New("there are two tables: map-cache and database")
	errAbsent = errors.New("there is no such entry")
)

// add puts an entry in until the node ends or it is removed: it is not written to
// the configuration.
func (n *Node) add(ctx context.Context, c statusd.Change) (none statusd.Nothing, err error) {
	c.Prefix = c.Prefix.Masked()
	switch c.Table {
	case "map-cache":
		m := mapcache.Mapping{
			Key: mapcache.Key{IID: c.IID, Prefix: c.Prefix}, Action: lisp.ActionNativelyForward, TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
		}
		for _, r := range c.RLOCs {
			if a := r.Addr; !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Zone() != "" {
				return none, fmt.Errorf("%v is the address of no other host", a)
			}
			m.RLOCs = append(m.RLOCs, mapcache.RLOC{
				Locator: mapcache.Locator{Addr: r.Addr, Port: r.Port, Format: format(n.cfg.Conf)}, Priority: r.Priority, Weight: r.Weight,
			})
		}
		var failed error
		err = n.runner.Do(ctx, func(now time.Time) { failed = n.engine.Cache().Insert(now, m) })
		return none, errors.Join(err, failed)
	case "database":
		return none, n.change(ctx, func(cfg *conf.Node) error { return cfg.AddMapping(c.IID, c.Prefix, c.TTL) })
	}
	return none, errTable
}

// del removes an entry, also one of the configuration, until that is read again.
func (n *Node) del(ctx context.Context, c statusd.Change) (none statusd.Nothing, err error) {
	c.Prefix = c.Prefix.Masked()
	switch c.Table {
	case "map-cache":
		found := false
		err = n.runner.Do(ctx, func(now time.Time) {
			found = n.engine.Cache().Remove(now, mapcache.Key{IID: c.IID, Prefix: c.Prefix})
		})
		if err == nil && !found {
			err = errAbsent
		}
		return none, err
	case "database":
		return none, n.change(ctx, func(cfg *conf.Node) error {
			if !cfg.RemoveMapping(c.IID, c.Prefix) {
				return errAbsent
			}
			return nil
		})
	}
	return none, errTable
}

// change puts another database into force.
func (n *Node) change(ctx context.Context, f func(*conf.Node) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	cfg := *n.conf
	if err := f(&cfg); err != nil {
		return err
	}
	db := database(&cfg, n.seen, n.versions)
	if err := n.takeOver(ctx, &cfg, func(now time.Time) error { return n.engine.SetDatabase(now, db) }); err != nil {
		return err
	}
	n.database = db
	return nil
}

// How long answers are waited for, and how often it is looked.
const (
	answerTime = 5 * time.Second
	lookTime   = 20 * time.Millisecond
)

// await looks again and again, within the Runner, until done says so.
func (n *Node) await(ctx context.Context, done func(now time.Time) bool) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	t := time.NewTicker(lookTime)
	defer t.Stop()
	for ok := false; ; {
		if err := n.runner.Do(ctx, func(now time.Time) { ok = done(now) }); err != nil || ok {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// probe sends an RLOC-probe on every path to a locator, and waits for the answers.
func (n *Node) probe(ctx context.Context, t statusd.Target) (out []statusd.Path, err error) {
	before := map[netip.Addr]control.Path{}
	paths := func() (ps []control.Path) {
		for _, p := range n.engine.Paths() {
			if p.Locator.Addr == t.Addr {
				ps = append(ps, p)
			}
		}
		return ps
	}
	if err := n.runner.Do(ctx, func(now time.Time) {
		for _, p := range paths() {
			before[p.Local] = p
			n.engine.Discover(now, mapcache.Discovery{Kind: mapcache.DiscoveryUnreachable, Locator: p.Locator})
		}
	}); err != nil {
		return nil, err
	}
	if len(before) == 0 {
		return nil, fmt.Errorf("no mapping in the map-cache has the locator %v, or probing is off: look one of its EIDs up first", t.Addr)
	}
	err = n.await(ctx, func(time.Time) bool {
		out = out[:0]
		all := true
		for _, p := range paths() {
			out = append(out, pathState(p))
			was := before[p.Local]
			all = all && (p.Answered > was.Answered || p.Down && p.Sent > was.Sent)
		}
		return all
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // what is known is told: Sent and Answered differ
	}
	return out, err
}

// lookup returns the map-cache entry of an EID, for which it asks if need be.
func (n *Node) lookup(ctx context.Context, t statusd.Target) (out statusd.Entry, err error) {
	if a := t.Addr; !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		return out, fmt.Errorf("%v is the address of no host", a)
	}
	asked := false
	err = n.await(ctx, func(now time.Time) bool {
		e, ok := n.engine.Cache().LookupEntry(n.cfg.Conf.IID, t.Addr)
		if ok {
			out = dataplane.Entry(e, n.engine.Cache())
			return true
		}
		if !asked {
			asked = true
			n.engine.Resolve(now, []mapcache.Key{mapcache.HostKey(n.cfg.Conf.IID, t.Addr)})
		}
		return false
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return out, fmt.Errorf("no Map-Reply for %v within %v", t.Addr, answerTime)
	}
	return out, err
}
