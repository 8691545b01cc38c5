package control

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
)

// Reconfigure makes the Engine go on with another configuration, while what was
// learned, registered and is forwarded stays. In force is what cfg says of
// MapServers, MapResolvers, MapRequestRetries, ProxyETRs, ProxyETRs4,
// ProxyETRs6, ProxyITR, StaticMappings, Database, LISPSEC, Probe and
// SMR.ProxyITRs; for all else the Engine keeps what it was made with.
//
// A Map-Server that is new, or has another key or other flags, is registered
// with at once; one that is gone keeps what it was told until that ends by
// itself. On an error, which wraps ErrConfig, nothing has changed.
func (e *Engine) Reconfigure(now time.Time, cfg Config) error {
	next := e.cfg
	next.MapServers, next.MapResolvers, next.MapRequestRetries = cfg.MapServers, cfg.MapResolvers, cfg.MapRequestRetries
	next.ProxyETRs, next.ProxyETRs4, next.ProxyETRs6 = cfg.ProxyETRs, cfg.ProxyETRs4, cfg.ProxyETRs6
	next.ProxyITR, next.StaticMappings, next.Database = cfg.ProxyITR, cfg.StaticMappings, cfg.Database
	next.LISPSEC, next.Probe, next.SMR.ProxyITRs = cfg.LISPSEC, cfg.Probe, cfg.SMR.ProxyITRs
	next, err := next.withDefaults()
	if err != nil {
		return err
	}
	if err := tryStatic(next.StaticMappings); err != nil {
		return err
	}
	now = e.tick(now)
	defer e.collect(now)
	if e.withdrawing {
		return nil
	}
	old := e.cfg
	reprobe := (old.Probe.Interval < 0) != (next.Probe.Interval < 0) || !slices.Equal(old.Probe.Exclude, next.Probe.Exclude)
	if reprobe {
		e.probeNone(now)
	}
	e.cfg = next
	if old.Probe.PreferRTT != next.Probe.PreferRTT {
		e.forgetClasses()
	}
	e.changeProxyETRs(now)
	if reprobe {
		for ent := range e.cache.All() {
			e.useLocators(now, ent.Key, nil, ent.RLOCs)
		}
	}
	e.changeStatic(now, old.StaticMappings)
	e.changeResolvers()
	e.changeServers(now)
	return e.SetDatabase(now, cfg.Database)
}

// tryStatic says what is wrong with static mappings, of which the map-cache gets
// none if anything is.
func tryStatic(ms []mapcache.Mapping) error {
	try := mapcache.New(mapcache.Config{})
	for _, m := range ms {
		if err := try.Insert(time.Time{}, static(m)); err != nil {
			return fmt.Errorf("control: static mapping %v: %w: %w", m.Key, err, ErrConfig)
		}
		try.Remove(time.Time{}, m.Key)
	}
	return nil
}

// probeNone ends all probing, by the configuration that it began with.
func (e *Engine) probeNone(now time.Time) {
	for ent := range e.cache.All() {
		e.useLocators(now, ent.Key, ent.RLOCs, nil)
	}
}

// changeProxyETRs has what goes to a Proxy-ETR asked for again if those are others now.
func (e *Engine) changeProxyETRs(now time.Time) {
	petrs := make(map[mapcache.Locator]bool)
	for _, r := range slices.Concat(e.cfg.ProxyETRs, e.cfg.ProxyETRs4, e.cfg.ProxyETRs6) {
		petrs[r.Locator] = true
	}
	if maps.Equal(petrs, e.petrs) {
		return
	}
	var again []mapcache.Key
	for ent := range e.cache.All() {
		if ent.Origin != mapcache.OriginStatic && (ent.Negative() || slices.ContainsFunc(ent.RLOCs, func(r mapcache.RLOC) bool { return e.petrs[r.Locator] })) {
			again = append(again, ent.Key)
		}
	}
	e.petrs = petrs
	for _, k := range again {
		e.cache.Remove(now, k)
	}
}

// changeStatic replaces the static mappings of old by those of the configuration.
func (e *Engine) changeStatic(now time.Time, old []mapcache.Mapping) {
	for _, m := range old {
		if !slices.ContainsFunc(e.cfg.StaticMappings, func(n mapcache.Mapping) bool { return n.Key == m.Key }) {
			e.cache.Remove(now, m.Key)
		}
	}
	for _, m := range e.cfg.StaticMappings {
		if slices.ContainsFunc(old, func(o mapcache.Mapping) bool { return reflect.DeepEqual(o, m) }) {
			continue
		}
		if err := e.cache.Insert(now, static(m)); err != nil {
			e.log.Error("static mapping not stored", "eid", m.Key, "err", err)
		}
	}
}

// changeResolvers makes the configured Map-Resolvers the ones that are asked. What
// is known of one that stays is kept; Map-Replies to requests under way are welcome
// whoever goes.
func (e *Engine) changeResolvers() {
	known := make(map[netip.AddrPort]*mapResolver)
	for _, r := range e.resolvers {
		known[r.addr] = r
	}
	before := e.resolvers
	e.resolvers = nil
	for _, a := range e.cfg.MapResolvers {
		r := known[a]
		if r == nil {
			r = &mapResolver{addr: a}
		}
		e.resolvers = append(e.resolvers, r)
	}
	if slices.Equal(before, e.resolvers) {
		return
	}
	for _, p := range e.pending {
		if i := slices.IndexFunc(e.resolvers, func(r *mapResolver) bool { return p.resolver < len(before) && r == before[p.resolver] }); i >= 0 {
			p.resolver = i
		} else {
			p.resolver, p.waiting = 0, false
		}
	}
}

// changeServers makes the configured Map-Servers the ones that are registered
// with.
func (e *Engine) changeServers(now time.Time) {
	before := e.servers
	e.servers = nil
	changed := len(before) != len(e.cfg.MapServers)
	for i := range e.cfg.MapServers {
		m := &e.cfg.MapServers[i]
		at := slices.IndexFunc(before, func(s *mapServer) bool { return reflect.DeepEqual(*s.MapServer, *m) })
		if at >= 0 {
			e.servers = append(e.servers, before[at])
			continue
		}
		changed = true
		e.servers = append(e.servers, &mapServer{
			MapServer: m, knows: make(map[mapcache.Key]bool), others: make(map[mapcache.Key]otherXTRs),
		})
	}
	if !changed {
		return
	}
	if e.nat != nil {
		e.nat.mute = false // that was the others
	}
	for _, r := range e.registrations {
		if !slices.Contains(e.servers, r.server) {
			e.timers.stop(&r.timer)
		}
	}
	e.arrange(now, databaseChange{})
}
