package conf

import "slices"

// Setting is an option of the file itself, outside of sections, that the
// command line gives: it takes the place of what the file says.
type Setting struct {
	Name   string
	Values []string
}

// OverrideMapServer as the name of a Setting replaces the addresses of the
// Map-Servers: the first map-server of the file, whose key is used, gets the
// first Value for an address, and the others go.
const OverrideMapServer = "map-server"

// OverrideProxyETR as the name of a Setting replaces all Proxy-ETRs.
const OverrideProxyETR = "proxy-etr"

// override puts settings into the tree of a file.
func (r *reader) override(root *section, settings []Setting) {
	for _, s := range settings {
		v := make([]value, len(s.Values))
		for i, text := range s.Values {
			v[i] = value{text: text, line: commandLine}
		}
		switch s.Name {
		case OverrideMapServer:
			r.overrideMapServer(root, v[:min(1, len(v))])
		case OverrideProxyETR:
			root.remove("proxy-etr", "proxy-etr-ipv4", "proxy-etr-ipv6", "use-ms-as-petr", "petr-address")
			root.items = append(root.items, item{name: s.Name, line: commandLine, values: v, list: len(v) > 1})
		default:
			root.remove(s.Name)
			root.items = append(root.items, item{name: s.Name, line: commandLine, values: v, list: len(v) > 1})
		}
	}
}

func (r *reader) overrideMapServer(root *section, addr []value) {
	i := slices.IndexFunc(root.items, func(it item) bool { return it.name == OverrideMapServer && it.section != nil })
	if i < 0 {
		r.probs.errorf(0, OverrideMapServer, "given on the command line, but the file has no map-server section whose key could be used")
		return
	}
	first := root.items[i]
	kept := *first.section
	kept.items = slices.Clone(kept.items)
	kept.remove("address")
	kept.items = append(kept.items, item{name: "address", line: commandLine, values: addr})
	first.section = &kept
	root.remove(OverrideMapServer)
	root.items = append(root.items, first)
}

// remove takes out all items of these names.
func (s *section) remove(names ...string) {
	s.items = slices.DeleteFunc(slices.Clone(s.items), func(it item) bool { return slices.Contains(names, it.name) })
}
