package mapserver

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// settings is the part of a Config that Reconfigure replaces, as Workers read it. It is
// immutable; each datagram is judged by one.
type settings struct {
	instances map[uint32]*instance
	sites     map[string]*site
	upstreams []*upstream
	nat       nat
	lispsec   *LISPSEC
}

// has reports whether st is still a site: another one of its name is not.
func (c *settings) has(st *site) bool { return c.sites[st.name] == st }

// set is what is in force.
func (s *Server) set() *settings { return s.settings.Load() }

// draft is settings that are not in force yet. Sites that stay are those of before.
type draft struct {
	settings
	tables map[uint32]*siteTable // by instance
	terms  map[string]*siteTerms // by site
}

func (d *draft) table(iid uint32) *siteTable {
	t := d.tables[iid]
	if t == nil {
		t = new(siteTable)
		d.tables[iid] = t
	}
	return t
}

// Reconfigure replaces Sites, Resolver, LISPSEC and NAT of the Config by those of cfg, of
// which nothing else counts. A Site is known by its Name: what is registered stays, with
// its nonces, as long as its EID-Prefix is that Site's, whatever else of it changes. What
// is not ends with a Removed event. With another key a registration lives until it is
// refreshed with one of the keys that are configured, or expires; a subscription ends
// with the key that it was made with. The error wraps ErrConfig; all stays as it was
// then.
func (s *Server) Reconfigure(now time.Time, cfg Config) error {
	cfg.Locals = s.locals
	d, err := s.compile(&cfg)
	if err != nil {
		return err
	}
	before := s.set()
	old := make(map[uint32]*siteTable, len(before.instances))
	for iid, inst := range before.instances {
		old[iid] = inst.table()
	}
	s.cfg.Sites, s.cfg.Resolver, s.cfg.LISPSEC, s.cfg.NAT = cfg.Sites, cfg.Resolver, cfg.LISPSEC, cfg.NAT
	judged := d.judgedAnew(before.instances)
	s.putInForce(d)
	ticks := s.toTicks(now)
	for iid, inst := range s.set().instances {
		for _, r := range inst.strangers(old[iid]) {
			s.removed(now, ticks, r)
		}
	}
	for x := range s.xtrs.all() {
		if x.claims == 0 && !s.set().has(x.site) {
			s.forgetXTR(x)
		}
	}
	for _, p := range s.notifies.peers {
		if !s.set().has(p.key.assoc.site) {
			s.forgetPeer(p)
		}
	}
	for _, p := range s.subscriptions.all {
		if k, ok := p.site.key(p.key.ID, p.key.Algorithm); !ok || !bytes.Equal(k.Secret, p.key.Secret) || !s.set().has(p.site) {
			s.unsubscribe(p)
		}
	}
	for _, k := range judged {
		s.remapped(ticks, k)
	}
	s.publishChanges(ticks)
	return nil
}

// judgedAnew are the EID-Prefixes of sites that are denied now, or in another way, or
// no more: subscribers have to hear.
func (d *draft) judgedAnew(instances map[uint32]*instance) (ks []regKey) {
	for iid, inst := range instances {
		for p, sp := range d.table(iid).All() {
			if sp.site == nil {
				continue // it is for other Map-Servers to answer
			}
			if was := sp.site.terms(); was != nil && was.deny != d.terms[sp.site.name].deny {
				ks = append(ks, regKey{inst, p})
			}
		}
	}
	return ks
}

// compile checks a Config and prepares what it says.
func (s *Server) compile(cfg *Config) (*draft, error) {
	d := &draft{
		settings: settings{sites: make(map[string]*site), lispsec: &cfg.LISPSEC},
		tables:   make(map[uint32]*siteTable), terms: make(map[string]*siteTerms),
	}
	for i := range cfg.Sites {
		if err := d.compileSite(i, &cfg.Sites[i], s.set().sites); err != nil {
			return nil, err
		}
	}
	if err := cfg.LISPSEC.check(); err != nil {
		return nil, err
	}
	if err := d.compileResolver(cfg); err != nil {
		return nil, err
	}
	return d, d.compileNAT(s, &cfg.NAT)
}

func (d *draft) compileSite(i int, in *Site, known map[string]*site) error {
	switch {
	case in.Name == "":
		return fmt.Errorf("%w: site %d has no name", ErrConfig, i)
	case d.sites[in.Name] != nil:
		return fmt.Errorf("%w: two sites named %q", ErrConfig, in.Name)
	case in.Replay > ReplayOff || in.Deny > DenyTemporary:
		return fmt.Errorf("%w: site %q: unknown replay mode or denial", ErrConfig, in.Name)
	}
	for _, k := range in.Keys {
		if k.Algorithm == lisp.AlgorithmNone || len(k.Secret) == 0 {
			return fmt.Errorf("%w: site %q: key %d has no algorithm or no secret", ErrConfig, in.Name, k.ID)
		}
	}
	terms := &siteTerms{
		keys: slices.Clone(in.Keys), wrap: cmp.Or(in.OTKWrap, lisp.WrapAES), proxy: in.ProxyReply, replay: in.Replay, deny: in.Deny,
	}
	terms.info = natt.SiteInfo{Name: in.Name, Keys: terms.keys, RTRs: slices.Clone(in.RTRs)}
	if terms.wrap > lisp.WrapAES {
		return fmt.Errorf("%w: site %q: key wrap %d", ErrConfig, in.Name, terms.wrap)
	}
	st := known[in.Name]
	if st == nil {
		st = &site{name: in.Name}
	}
	d.sites[in.Name], d.terms[in.Name] = st, terms
	for _, p := range in.Prefixes {
		if !p.Prefix.IsValid() || p.Prefix.Addr().Is4In6() || p.IID > 0xffffff {
			return fmt.Errorf("%w: site %q: EID-Prefix [%d]%v", ErrConfig, in.Name, p.IID, p.Prefix)
		}
		prefix, t := p.Prefix.Masked(), d.table(p.IID)
		if other, ok := t.Get(prefix); ok {
			return fmt.Errorf("%w: EID-Prefix [%d]%v belongs to %q and %q", ErrConfig, p.IID, prefix, other.site.name, in.Name)
		}
		t.Insert(prefix, &sitePrefix{site: st, more: p.AcceptMoreSpecifics})
	}
	return nil
}

// putInForce makes a draft what Workers see. A datagram that is under way meanwhile may
// meet some of the old and some of the new; what comes of it is judged again when it is
// applied.
func (s *Server) putInForce(d *draft) {
	before := s.set()
	d.instances = make(map[uint32]*instance)
	maps.Copy(d.instances, before.instances) // what was registered in it may still have to expire
	for iid := range d.tables {
		if d.instances[iid] == nil {
			d.instances[iid] = newInstance(iid)
		}
	}
	for name, terms := range d.terms {
		d.sites[name].current.Store(terms)
	}
	for iid, inst := range d.instances {
		inst.sites.Store(d.table(iid))
	}
	for _, u := range before.upstreams {
		s.checks.Delete(u.nonce)
		i := slices.IndexFunc(d.upstreams, func(n *upstream) bool { return n.addr == u.addr })
		if i >= 0 {
			d.upstreams[i].health.Store(u.health.Load())
			d.upstreams[i].misses = u.misses
		}
	}
	if s.cfg.HealthInterval > 0 && slices.ContainsFunc(d.upstreams, func(u *upstream) bool { return u.checked }) {
		s.healthAt = 0
	}
	set := d.settings
	s.settings.Store(&set)
	s.worker.set = &set
}

// strangers are the registrations whose EID-Prefix is not their site's, after the table
// was another one: only where it has changed can there be any.
func (inst *instance) strangers(before *siteTable) (rs []*registration) {
	table := inst.table()
	if before == nil {
		return nil
	}
	look := func(p netip.Prefix) {
		for _, t := range []*regTrie{inst.regs, inst.dead} {
			for _, r := range t.Subnets(p) {
				if sp, ok := inst.siteOf(r.key.prefix); !ok || sp.site != r.site {
					rs = append(rs, r)
				}
			}
		}
	}
	for _, pair := range [][2]*siteTable{{before, table}, {table, before}} {
		for p, sp := range pair[0].All() {
			if other, ok := pair[1].Get(p); !ok || other.site != sp.site || other.more != sp.more {
				look(p)
			}
		}
	}
	return rs
}

// removed ends a registration that has lost its place.
func (s *Server) removed(now time.Time, ticks int64, r *registration) {
	live := r.live(ticks)
	for _, c := range r.claims() {
		if c.replaced {
			continue // seen already, in another changed prefix
		}
		if c.live(ticks) {
			s.log.Info("registration removed", "eid", c.key.prefix, "iid", c.key.inst.iid, "site", c.site.name, "peer", c.from)
			s.addEvent(Removed{Time: now, Site: c.site.name, IID: c.key.inst.iid, EID: c.key.prefix, From: c.from, XTRID: c.holder().xtr})
		}
		s.dropClaim(c)
	}
	s.publish(ticks, &registration{key: r.key, site: r.site})
	if live {
		s.remapped(ticks, r.key)
	}
}

// stillFits tells whether an Update that was verified by other settings than those in
// force may be applied: its EID-Prefixes are still those of its sites.
func (s *Server) stillFits(u *Update) bool {
	if !s.set().has(u.xtr.site) {
		return false
	}
	for i := range u.items {
		it := &u.items[i]
		if sp, ok := it.key.inst.siteOf(it.key.prefix); !ok || sp.site != it.site {
			return false
		}
	}
	return true
}
