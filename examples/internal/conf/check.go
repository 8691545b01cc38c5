package conf

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// group is a section that was held against its table. Options that are
// repeated count with their last value, as in libConfuse.
type group struct {
	name    string
	line    int
	table   options
	options map[string]item
	groups  map[string][]*group
	bad     bool // something of it was not understood, and is not here
	probs   *problems
}

// check holds a section against its table. Options of other roles than who
// are left out, with a warning: files are shared between modes.
func check(s *section, table options, who role, probs *problems) *group {
	g := &group{name: s.name, line: s.line, table: table, options: map[string]item{}, groups: map[string][]*group{}, probs: probs}
	for _, it := range s.items {
		path := join(s.name, it.name)
		o, ok := table[it.name]
		if !ok {
			reportUnknown(it, path, s.name, table, who, probs)
			g.bad = true
			continue
		}
		if o.role != 0 && o.role&who == 0 {
			probs.warnf(it.line, path, "is not for this program (%s); ignored", o.role)
			continue
		}
		if !rightShape(it, o, path, probs) {
			g.bad = true
			continue
		}
		if !isSupported(it, o, path, probs) {
			continue
		}
		g.add(it, o, path, who)
	}
	return g
}

func reportUnknown(it item, path, in string, table options, who role, probs *problems) {
	names := slices.Collect(maps.Keys(table))
	hint := ""
	if n := Suggest(it.name, names); n != "" {
		hint = "; did you mean '" + n + "'?"
	} else if other := whereKnown(it.name, in, who); other != "" {
		hint = "; it belongs into " + other
	}
	where := ""
	if in != "" {
		where = " in section " + in
	}
	probs.errorf(it.line, path, "unknown option%s%s", where, hint)
}

// whereKnown looks for the name in other sections, first in those of the program's
// role.
func whereKnown(name, not string, who role) string {
	table := known
	if _, ok := table[name]; ok {
		return "the file itself, outside of any section"
	}
	var found []string
	for _, s := range slices.Sorted(maps.Keys(table)) {
		o, ok := table[s].sub[name]
		switch {
		case !ok || s == not:
		case (table[s].role == 0 || table[s].role&who != 0) && (o.role == 0 || o.role&who != 0):
			return "section " + s
		default:
			found = append(found, s)
		}
	}
	if len(found) > 0 {
		return "section " + found[0]
	}
	return ""
}

// rightShape reports whether the item is a section, a list or a value as its
// option asks.
func rightShape(it item, o option, path string, probs *problems) bool {
	switch {
	case o.kind == kindSection && it.section == nil:
		if o.bare && !it.list && len(it.values) == 1 {
			return true
		}
		probs.errorf(it.line, path, "is a section: write %s { ... }", path)
		return false
	case o.kind != kindSection && it.section != nil:
		if o.kind == kindList {
			probs.errorf(it.line, path, "is a list: write %s = { ... }", path)
		} else {
			probs.errorf(it.line, path, "is not a section: write %s = ...", path)
		}
		return false
	case o.kind != kindSection && o.kind != kindList && (it.list || it.extend):
		probs.errorf(it.line, path, "takes one value, not a list")
		return false
	}
	return true
}

// isSupported says what the table says about the option, and reports whether
// it is to be read.
func isSupported(it item, o option, path string, probs *problems) bool {
	if o.support == supported {
		return true
	}
	if o.harmless != "" && len(it.values) == 1 && sameValue(o.kind, it.values[0].text, o.harmless) {
		return false
	}
	if o.support == ignored {
		probs.warnf(it.line, path, "ignored: %s", o.why)
	} else {
		probs.errorf(it.line, path, "not supported: %s", o.why)
	}
	return false
}

func sameValue(k kind, a, b string) bool {
	if k == kindBool {
		x, okX := parseBool(a)
		y, okY := parseBool(b)
		return okX && okY && x == y
	}
	return strings.EqualFold(a, b)
}

// add takes a checked item over, and checks its values or its content.
func (g *group) add(it item, o option, path string, who role) {
	if o.kind == kindSection {
		if it.section == nil { // the early form: the address alone
			it.section = &section{name: path, line: it.line, items: []item{{name: "address", line: it.line, values: it.values}}}
		}
		if old := g.groups[it.name]; o.once && len(old) > 0 {
			g.probs.errorf(it.line, path, "is there already, in line %d", old[0].line)
			return
		}
		g.groups[it.name] = append(g.groups[it.name], check(it.section, o.sub, who, g.probs))
		return
	}
	for _, v := range it.values {
		switch o.kind {
		case kindInt:
			n, err := strconv.ParseInt(v.text, 0, 64)
			if err != nil || n < o.min || n > o.max {
				g.probs.errorf(v.line, path, "'%s' is not a number from %d to %d", v.text, o.min, o.max)
				return
			}
		case kindBool:
			if _, ok := parseBool(v.text); !ok {
				g.probs.errorf(v.line, path, "'%s' is neither on nor off", v.text)
				return
			}
		case kindString, kindList, kindSection:
		}
	}
	if old, ok := g.options[it.name]; ok {
		if it.extend {
			it.values = append(slices.Clip(old.values), it.values...)
		} else {
			g.probs.warnf(it.line, path, "replaces the value of line %d", old.line)
		}
	}
	g.options[it.name] = it
}

// parseBool knows the words of libConfuse.
func parseBool(s string) (v, ok bool) {
	switch strings.ToLower(s) {
	case "on", "true", "yes":
		return true, true
	case "off", "false", "no":
		return false, true
	}
	return false, false
}

// has reports whether the option is given.
func (g *group) has(name string) bool {
	_, ok := g.options[name]
	return ok
}

// lineOf is where the option is, or where its section starts.
func (g *group) lineOf(name string) int {
	if it, ok := g.options[name]; ok {
		return it.line
	}
	return g.line
}

// str returns the value of an option, or def.
func (g *group) str(name, def string) string {
	if it, ok := g.options[name]; ok && len(it.values) > 0 {
		return it.values[len(it.values)-1].text
	}
	return def
}

// num returns the value of a number, or def.
func (g *group) num(name string, def int64) int64 {
	if n, err := strconv.ParseInt(g.str(name, ""), 0, 64); err == nil {
		return n
	}
	return def
}

// on returns the value of a bool, or def.
func (g *group) on(name string, def bool) bool {
	if v, ok := parseBool(g.str(name, "")); ok {
		return v
	}
	return def
}

// list returns the values of a list.
func (g *group) list(name string) []value { return g.options[name].values }

// errorf reports a problem with an option of the group.
func (g *group) errorf(option, format string, args ...any) {
	g.probs.errorf(g.lineOf(option), join(g.name, option), format, args...)
}

func (g *group) warnf(option, format string, args ...any) {
	g.probs.warnf(g.lineOf(option), join(g.name, option), format, args...)
}

// need reports an option that is missing, and returns its value otherwise. In a group
// that was not understood as a whole it may be there by another name.
func (g *group) need(name string) (string, bool) {
	if v := g.str(name, ""); v != "" {
		return v, true
	}
	if g.has(name) {
		g.errorf(name, "is empty")
	} else if !g.bad {
		g.probs.errorf(g.line, join(g.name, name), "is missing")
	}
	return "", false
}

func (r role) String() string {
	var names []string
	for _, n := range []struct {
		role role
		name string
	}{{roleXTR, "lispmn"}, {roleMS, "lispms"}, {roleRTR, "RTR"}, {roleDDT, "DDT"}} {
		if r&n.role != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " or ")
}
