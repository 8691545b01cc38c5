package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// show prints a part of the state.
func (c *command) show(ctx context.Context, args []string) error {
	st, err := c.client.Status(ctx)
	if err != nil {
		return err
	}
	what := ""
	if len(args) > 0 {
		what = args[0]
	}
	filter(&st, c.filter.Prefix)
	v, text, err := view(&st, what)
	if err != nil {
		return err
	}
	return c.done(v, text)
}

// view is one table of the state, as a value and as text.
func view(st *statusd.Status, what string) (any, func(io.Writer), error) {
	n, m := st.Node, st.MapServer
	if what == "" {
		return st, func(w io.Writer) { overview(w, st) }, nil
	}
	switch {
	case what == "stats":
		return stats(st), func(w io.Writer) { statsTable(w, st) }, nil
	case st.RTR != nil && what == "map-cache":
		return full(st.RTR.MapCache), func(w io.Writer) { entryTable(w, st.Time, st.RTR.MapCache) }, nil
	case st.RTR != nil && what == "nat":
		return full(st.RTR.Relays), func(w io.Writer) { relayTable(w, st) }, nil
	case m != nil && what == "sites":
		return full(m.Sites), func(w io.Writer) { siteTable(w, m) }, nil
	case m != nil && what == "registrations":
		return full(m.Registrations), func(w io.Writer) { registeredTable(w, st) }, nil
	case n == nil:
	case what == "map-cache":
		return full(n.MapCache), func(w io.Writer) { entryTable(w, st.Time, n.MapCache) }, nil
	case what == "database":
		return full(n.Database), func(w io.Writer) { databaseTable(w, st.Time, n.Database) }, nil
	case what == "registrations":
		return full(n.Registrations), func(w io.Writer) { registrationTable(w, st) }, nil
	case what == "rlocs":
		return full(n.Paths), func(w io.Writer) { rlocTable(w, n) }, nil
	case what == "interfaces":
		return full(n.Interfaces), func(w io.Writer) { interfaceTable(w, n) }, nil
	case what == "nat":
		return full(n.NAT), func(w io.Writer) { natTable(w, st) }, nil
	}
	tables := []string{"map-cache", "database", "registrations", "rlocs", "interfaces", "nat", "stats", "sites"}
	if slices.Contains(tables, what) {
		return nil, nil, fmt.Errorf("%s has no %s", st.Program, what)
	}
	return nil, nil, usage("show: there is no %q; there are %s", what, strings.Join(tables, ", "))
}

// full is a table that is [] in JSON, not null, if it is empty.
func full[T any](rows []T) []T {
	if rows == nil {
		return []T{}
	}
	return rows
}

// filter leaves what is within a prefix, or covers it.
func filter(st *statusd.Status, p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	outside := func(e statusd.Entry) bool { return !e.Prefix.Overlaps(p) }
	if n := st.Node; n != nil {
		n.MapCache, n.Database = slices.DeleteFunc(n.MapCache, outside), slices.DeleteFunc(n.Database, outside)
		n.Paths = slices.DeleteFunc(n.Paths, func(x statusd.Path) bool { return !p.Contains(x.Remote) })
		n.Registrations = slices.DeleteFunc(n.Registrations, func(r statusd.Registration) bool {
			return !slices.ContainsFunc(r.EIDs, func(e string) bool { return overlaps(e, p) })
		})
	}
	if r := st.RTR; r != nil {
		r.MapCache = slices.DeleteFunc(r.MapCache, outside)
		r.Relays = slices.DeleteFunc(r.Relays, func(x statusd.Relay) bool { return !x.Prefix.Overlaps(p) })
	}
	if m := st.MapServer; m != nil {
		m.Registrations = slices.DeleteFunc(m.Registrations, func(e statusd.SiteEntry) bool { return !e.Prefix.Overlaps(p) })
		m.Sites = slices.DeleteFunc(m.Sites, func(s statusd.Site) bool {
			return !slices.ContainsFunc(s.Prefixes, func(e string) bool { return overlaps(e, p) })
		})
	}
}

// overlaps reads an EID-Prefix that may have an instance in brackets before it.
func overlaps(eid string, p netip.Prefix) bool {
	_, after, found := strings.Cut(eid, "]")
	if found {
		eid = after
	}
	q, err := netip.ParsePrefix(eid)
	return err == nil && q.Overlaps(p)
}

// eids are all EID-Prefixes that the program knows, its own first.
func eids(st *statusd.Status, p netip.Prefix) (out []string) {
	filter(st, p)
	if n := st.Node; n != nil {
		for _, e := range slices.Concat(n.Database, n.MapCache) {
			out = append(out, key(e.IID, e.Prefix))
		}
	}
	if r := st.RTR; r != nil {
		for _, e := range r.Relays {
			out = append(out, key(e.IID, e.Prefix))
		}
		for _, e := range r.MapCache {
			out = append(out, key(e.IID, e.Prefix))
		}
	}
	if m := st.MapServer; m != nil {
		for _, e := range m.Registrations {
			out = append(out, key(e.IID, e.Prefix))
		}
	}
	return unique(out)
}

// rlocs are all locators of others that the program knows.
func rlocs(st *statusd.Status, p netip.Prefix) (out []string) {
	take := func(rs []statusd.RLOC) {
		for _, r := range rs {
			if !p.IsValid() || p.Contains(r.Addr) {
				out = append(out, r.Addr.String())
			}
		}
	}
	if n := st.Node; n != nil {
		for _, e := range n.MapCache {
			take(e.RLOCs)
		}
	}
	if r := st.RTR; r != nil {
		for _, e := range r.MapCache {
			take(e.RLOCs)
		}
	}
	if m := st.MapServer; m != nil {
		for _, e := range m.Registrations {
			take(e.RLOCs)
		}
	}
	return unique(out)
}

// unique leaves out what came before.
func unique(ss []string) []string {
	out := []string{}
	seen := map[string]bool{}
	for _, s := range ss {
		if !seen[s] {
			out = append(out, s)
		}
		seen[s] = true
	}
	return out
}

func key(iid uint32, p netip.Prefix) string {
	if iid == 0 {
		return p.String()
	}
	return fmt.Sprintf("[%d]%v", iid, p)
}

// stats are the counters of a program, by name. Those of a Map-Server that is an RTR too
// are a part of their own.
func stats(st *statusd.Status) any {
	var server map[string]any
	if m := st.MapServer; m != nil {
		server = map[string]any{"counters": m.Counters, "refused": m.Refused}
	}
	switch {
	case st.RTR != nil:
		all := map[string]any{"counters": st.RTR.Counters, "refused": st.RTR.Refused, "traffic": st.RTR.Traffic}
		if server != nil {
			all["mapServer"] = server
		}
		return all
	case server != nil:
		return server
	}
	return map[string]any{"control": st.Node.Control, "controlDrops": st.Node.ControlDrops, "traffic": st.Node.Traffic}
}
