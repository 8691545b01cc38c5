package node

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/mapcache"
)

// locatorsOf finds the addresses that the configured locator sources stand for
// on a host with these interfaces, and says which sources stand for none. It is
// an error if all of them do.
func locatorsOf(cfg *conf.Node, ifs []hostInterface) (locals []mapcache.Local, missing []string, err error) {
	for _, m := range cfg.Mappings {
		for _, s := range m.Locators {
			l, why := find(cfg, ifs, s)
			if why != "" {
				// One line of the file can stand for several EID-Prefixes and families.
				if text := fmt.Sprintf("%s:%d: %s", cfg.File, s.Line, why); !slices.Contains(missing, text) {
					missing = append(missing, text)
				}
				continue
			}
			locals = addLocal(locals, l)
		}
	}
	if len(locals) == 0 {
		return nil, missing, fmt.Errorf("no address to be reached at:\n%s", strings.Join(missing, "\n"))
	}
	return locals, missing, nil
}

// addLocal adds l. When two EID-Prefixes use one address differently, the
// better priority counts: what is announced is weighed per EID-Prefix.
func addLocal(ls []mapcache.Local, l mapcache.Local) []mapcache.Local {
	for i := range ls {
		if ls[i].Addr == l.Addr {
			if l.Priority < ls[i].Priority {
				ls[i].Priority, ls[i].Weight = l.Priority, l.Weight
			}
			return ls
		}
	}
	return append(ls, l)
}

// find returns the locator of a source, or why there is none.
func find(cfg *conf.Node, ifs []hostInterface, s conf.LocatorSource) (mapcache.Local, string) {
	local := mapcache.Local{Priority: s.Priority, Weight: s.Weight, Up: true}
	var names []string
	for _, i := range ifs {
		names = append(names, i.name)
		if s.Interface != "" && s.Interface != i.name {
			continue
		}
		if s.Interface != "" && !i.up {
			return local, "interface " + i.name + " is down"
		}
		for _, a := range preferred(i.addrs, cfg.SiteScope) {
			wanted := s.Addr == a || !s.Addr.IsValid() && (s.Family == 4) == a.Is4() && usable(cfg, a)
			if wanted {
				local.Addr, local.IfIndex = a, i.index
				return local, ""
			}
		}
		if s.Interface != "" {
			return local, fmt.Sprintf("interface %s has no usable IPv%d address", i.name, s.Family)
		}
	}
	if s.Addr.IsValid() {
		return local, fmt.Sprintf("no interface has the address %s", s.Addr)
	}
	return local, fmt.Sprintf("there is no interface %s (there are: %s)", s.Interface, strings.Join(names, ", "))
}

// preferred puts the addresses of the wanted scope first.
func preferred(as []netip.Addr, siteScope bool) []netip.Addr {
	var first, rest []netip.Addr
	for _, a := range as {
		if a.Is6() && a.IsPrivate() != siteScope {
			rest = append(rest, a)
		} else {
			first = append(first, a)
		}
	}
	return append(first, rest...)
}

// usable reports whether an address can be a locator: it must not be an EID.
func usable(cfg *conf.Node, a netip.Addr) bool {
	if !a.IsGlobalUnicast() {
		return false
	}
	for _, m := range cfg.Mappings {
		if m.Prefix.Contains(a) {
			return false
		}
	}
	return true
}

// databaseRLOCs says which locators an EID-Prefix has when not all EID-Prefixes
// have the same.
func databaseRLOCs(cfg *conf.Node, m conf.DatabaseMapping, ifs []hostInterface) []control.DatabaseRLOC {
	var rs []control.DatabaseRLOC
	for _, s := range m.Locators {
		if l, why := find(cfg, ifs, s); why == "" {
			rs = append(rs, control.DatabaseRLOC{Addr: l.Addr, Priority: s.Priority, Weight: s.Weight})
		}
	}
	return rs
}

// hostInterface is an interface of the host and its addresses, in the order the
// system lists them.
type hostInterface struct {
	name  string
	index int
	up    bool
	addrs []netip.Addr
}

func hostInterfaces() ([]hostInterface, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("interfaces of this host: %w", err)
	}
	var hs []hostInterface
	for _, i := range ifs {
		h := hostInterface{name: i.Name, index: i.Index, up: i.Flags&net.FlagUp != 0}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone in between
		}
		for _, a := range addrs {
			if p, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(p.IP); ok {
					h.addrs = append(h.addrs, ip.Unmap())
				}
			}
		}
		hs = append(hs, h)
	}
	return hs, nil
}
