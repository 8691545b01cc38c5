package node

import (
	"fmt"
	"math"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// locatorsOf finds the addresses that the configured locator sources stand for
// on a host with these interfaces, and says of which sources there is nothing to
// be used now, and why. A locator whose interface cannot be used is there, but
// not Up: others are told that it exists and is down.
func locatorsOf(cfg *conf.Node, ifs []multihome.Interface) (locals []mapcache.Local, missing []string) {
	sources := slices.Clone(cfg.Locators)
	for _, m := range cfg.Mappings {
		sources = append(sources, m.Locators...)
	}
	for _, s := range sources {
		if s.Remote {
			continue
		}
		found, why := find(ifs, s)
		if why != "" {
			// One line of the file can stand for several EID-Prefixes and families.
			if text := fmt.Sprintf("%s:%d: %s", cfg.File, s.Line, why); !slices.Contains(missing, text) {
				missing = append(missing, text)
			}
		}
		for _, l := range found {
			locals = addLocal(locals, l)
		}
	}
	return locals, missing
}

// addLocal adds l. When two EID-Prefixes use one address differently, the
// better priority counts: what is announced is weighed per EID-Prefix. When two
// interfaces have one address, as modems of one kind give it, the first counts that
// is up.
func addLocal(ls []mapcache.Local, l mapcache.Local) []mapcache.Local {
	for i := range ls {
		if ls[i].Addr == l.Addr {
			if l.Up && !ls[i].Up {
				ls[i].IfIndex, ls[i].Up = l.IfIndex, true
			}
			if l.Priority < ls[i].Priority {
				ls[i].Priority, ls[i].Weight = l.Priority, l.Weight
			}
			return ls
		}
	}
	return append(ls, l)
}

// find returns the locators of a source, and why none of them is up.
func find(ifs []multihome.Interface, s conf.LocatorSource) (found []mapcache.Local, why string) {
	v6 := s.Family == 6
	if s.Addr.IsValid() {
		v6 = s.Addr.Is6()
	}
	var names []string
	up := false
	for _, i := range ifs {
		names = append(names, i.Name)
		if ok, _ := path.Match(s.Interface, i.Name); s.Interface != "" && !ok {
			continue
		}
		l := mapcache.Local{IfIndex: i.Index, Priority: s.Priority, Weight: s.Weight, Up: i.Usable(v6) == multihome.Usable}
		addrs := i.Addrs(v6)
		switch {
		case !s.Addr.IsValid() && len(addrs) > 0:
			l.Addr = addrs[0]
		case s.Addr.IsValid() && slices.Contains(addrs, s.Addr):
			l.Addr = s.Addr
		}
		if l.Addr.IsValid() {
			found = append(found, l)
			up = up || l.Up
		}
		if s.Interface != "" || l.Addr.IsValid() {
			why = unusable(i, v6)
		}
	}
	switch {
	case up:
		return found, ""
	case why != "":
		return found, why
	case s.Addr.IsValid():
		return nil, fmt.Sprintf("no interface has the address %s", s.Addr)
	default:
		return nil, fmt.Sprintf("there is no interface %s (there are: %s)", s.Interface, strings.Join(names, ", "))
	}
}

// unusable says why an interface carries no traffic of a family, in words.
func unusable(i multihome.Interface, v6 bool) string {
	family := "IPv4"
	if v6 {
		family = "IPv6"
	}
	switch i.Usable(v6) {
	case multihome.LinkDown:
		return "interface " + i.Name + " is down"
	case multihome.NoAddress:
		return fmt.Sprintf("interface %s has no usable %s address", i.Name, family)
	case multihome.NoDefaultRoute:
		return fmt.Sprintf("interface %s has no %s default route", i.Name, family)
	default:
		return ""
	}
}

// isEID reports whether an address is in one of our EID-Prefixes: it must not be
// a locator.
func isEID(cfg *conf.Node) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(cfg.Mappings, func(m conf.DatabaseMapping) bool { return m.Prefix.Contains(a) })
	}
}

// notThere is the index of an interface that has none yet: the list of an
// EID-Prefix must not be empty, which would stand for every locator.
const notThere = math.MaxInt32

// databaseRLOCs says which locators an EID-Prefix has when not all EID-Prefixes
// have the same: by interface where the configuration names interfaces, so that a
// new address changes nothing here.
func databaseRLOCs(m conf.DatabaseMapping, ifs []multihome.Interface) []control.DatabaseRLOC {
	var rs []control.DatabaseRLOC
	for _, s := range m.Locators {
		r := control.DatabaseRLOC{Addr: s.Addr, Priority: s.Priority, Weight: s.Weight, Remote: s.Remote}
		if s.Addr.IsValid() {
			rs = append(rs, r)
			continue
		}
		for _, i := range ifs {
			if ok, _ := path.Match(s.Interface, i.Name); ok {
				r.IfIndex, r.Family = i.Index, uint8(s.Family)
				rs = append(rs, r)
			}
		}
	}
	if rs == nil {
		rs = append(rs, control.DatabaseRLOC{IfIndex: notThere, Priority: 255})
	}
	return rs
}
