package topview

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// sorting is the order of rows.
type sorting int

const (
	byRate sorting = iota
	byTotal
	byAddress
	numSortings
)

func (s sorting) String() string { return [...]string{"rate", "total", "address"}[s] }

var (
	title = lipgloss.NewStyle().Bold(true)
	head  = lipgloss.NewStyle().Reverse(true)
	alarm = lipgloss.NewStyle().Foreground(lipgloss.Red)
	dim   = lipgloss.NewStyle().Faint(true)
)

// locator is a row: a remote locator with what went to and came from it.
type locator struct {
	addr            netip.Addr
	state           string
	rtt             time.Duration
	out, in         statusd.Counter // since the start
	outRate, inRate rate
	eids            int
}

// rate is traffic per second.
type rate struct{ packets, octets float64 }

func (m model) draw() string {
	var b strings.Builder
	if m.err != nil {
		fmt.Fprintln(&b, alarm.Render("no answer: "+m.err.Error()))
	}
	if m.now == nil {
		return b.String()
	}
	m.drawHead(&b)
	if n := m.now.Node; n != nil {
		ls := m.locators()
		rows := [][]string{{"LOCATOR", "STATE", "RTT", "OUT bit/s", "IN bit/s", "OUT packets/s", "IN packets/s", "OUT total", "IN total", "EIDs"}}
		for _, l := range ls {
			rows = append(rows, []string{
				l.addr.String(), l.state, round(l.rtt), amount(8 * l.outRate.octets), amount(8 * l.inRate.octets),
				amount(l.outRate.packets), amount(l.inRate.packets), amount(float64(l.out.Octets)) + "B", amount(float64(l.in.Octets)) + "B", fmt.Sprint(l.eids),
			})
		}
		eids := m.eids()
		limits := m.room(strings.Count(b.String(), "\n"), len(rows)-1, len(eids)-1)
		m.table(&b, rows, limits[0])
		m.table(&b, eids, limits[1])
	}
	keys := fmt.Sprintf("sorted by %s (s)  pause (p)  quit (q)", m.sorting)
	if m.paused {
		keys = "PAUSED  " + keys
	}
	fmt.Fprint(&b, dim.Render(keys))
	return b.String()
}

// room is how many of their rows two tables may have below the lines that are used: half of
// it each, and what one does not need the other.
func (m model) room(used, first, second int) [2]int {
	const (
		beside = 3 // lines of a table that are no rows: its head, what is left out, a space
		keys   = 1
	)
	if m.height == 0 {
		return [2]int{20, 20}
	}
	all := max(4, m.height-used-2*beside-keys)
	a := max(min(first, all/2), all-second)
	return [2]int{a, all - min(first, a)}
}

func (m model) drawHead(b *strings.Builder) {
	st := m.now
	fmt.Fprintf(b, "%s  up %s", title.Render(st.Program), st.Time.Sub(st.Started).Round(time.Second))
	n := st.Node
	if n == nil {
		fmt.Fprintln(b, "  is not a node with a data plane")
		return
	}
	b.WriteString("\n")
	registered := 0
	for _, r := range n.Registrations {
		if r.State == "registered" {
			registered++
		}
	}
	m.wrapped(b, "EIDs "+joined(n.EIDs), fmt.Sprintf("map-cache %d", len(n.MapCache)), fmt.Sprintf("registered %d of %d", registered, len(n.Registrations)),
		fmt.Sprintf("waiting packets %d", n.Traffic.HeldNow))
	var before statusd.Traffic
	if m.before != nil && m.before.Node != nil {
		before = m.before.Node.Traffic
	}
	var rates []string
	for _, t := range []struct {
		name     string
		now, old statusd.Counter
	}{
		{"to LISP sites", n.Traffic.Encapsulated, before.Encapsulated},
		{"from them", n.Traffic.Decapsulated, before.Decapsulated},
		{"native", n.Traffic.Native, before.Native},
	} {
		r := m.rate(t.now, t.old)
		rates = append(rates, fmt.Sprintf("%s %sbit/s %s packets/s", t.name, amount(8*r.octets), strings.TrimSpace(amount(r.packets))))
	}
	m.wrapped(b, rates...)
}

// wrapped writes parts in as few lines as the terminal has columns for.
func (m model) wrapped(b *strings.Builder, parts ...string) {
	line := ""
	for _, p := range parts {
		if m.width > 0 {
			p = p[:min(len(p), m.width)]
		}
		switch {
		case line == "":
			line = p
		case m.width > 0 && len(line)+3+len(p) > m.width:
			fmt.Fprintln(b, line)
			line = p
		default:
			line += "   " + p
		}
	}
	fmt.Fprintln(b, line)
}

// rate is the difference to the look before, per second; 0 without one.
func (m model) rate(now, before statusd.Counter) rate {
	if m.before == nil {
		return rate{}
	}
	seconds := m.now.Time.Sub(m.before.Time).Seconds()
	if seconds <= 0 || now.Packets < before.Packets || now.Octets < before.Octets {
		return rate{}
	}
	return rate{float64(now.Packets-before.Packets) / seconds, float64(now.Octets-before.Octets) / seconds}
}

// locators are the remote locators of the map-cache and those with traffic.
func (m model) locators() []locator {
	by := make(map[netip.Addr]*locator)
	get := func(a netip.Addr) *locator {
		if by[a] == nil {
			by[a] = &locator{addr: a, state: "-"}
		}
		return by[a]
	}
	for _, e := range m.now.Node.MapCache {
		for _, r := range e.RLOCs {
			l := get(r.Addr)
			l.eids++
			if l.state != "up" {
				l.state = r.State
			}
		}
	}
	for _, p := range m.now.Node.Paths {
		if l := by[p.Remote]; l != nil && p.RTT > 0 && (l.rtt == 0 || p.RTT < l.rtt) {
			l.rtt = p.RTT
		}
	}
	for _, t := range m.now.Node.Traffic.Locators {
		l := get(t.Addr)
		l.out, l.in = sum(l.out, t.Out), sum(l.in, t.In)
	}
	if m.before != nil && m.before.Node != nil {
		out, in := make(map[netip.Addr]statusd.Counter), make(map[netip.Addr]statusd.Counter)
		for _, t := range m.before.Node.Traffic.Locators {
			out[t.Addr], in[t.Addr] = sum(out[t.Addr], t.Out), sum(in[t.Addr], t.In)
		}
		for a, l := range by {
			l.outRate, l.inRate = m.rate(l.out, out[a]), m.rate(l.in, in[a])
		}
	}
	ls := make([]locator, 0, len(by))
	for _, l := range by {
		ls = append(ls, *l)
	}
	slices.SortFunc(ls, func(a, b locator) int {
		return cmp.Or(cmp.Compare(m.order(b.outRate, b.inRate, b.out, b.in), m.order(a.outRate, a.inRate, a.out, a.in)), a.addr.Compare(b.addr))
	})
	return ls
}

// order is what rows are sorted by; the largest comes first.
func (m model) order(outRate, inRate rate, out, in statusd.Counter) float64 {
	switch m.sorting {
	case byRate:
		return outRate.octets + inRate.octets
	case byTotal:
		return float64(out.Octets + in.Octets)
	default: // the address alone
		return 0
	}
}

// eid is a row: an EID-Prefix with what went to and came from its EIDs, by whatever
// locator.
type eid struct {
	entry           *statusd.Entry
	outRate, inRate rate
}

// eids are rows of EID-Prefixes, sorted as the locators are.
func (m model) eids() [][]string {
	type key struct {
		iid    uint32
		prefix netip.Prefix
	}
	before := make(map[key]*statusd.Entry)
	if m.before != nil && m.before.Node != nil {
		for i := range m.before.Node.MapCache {
			e := &m.before.Node.MapCache[i]
			before[key{e.IID, e.Prefix}] = e
		}
	}
	es := make([]eid, 0, len(m.now.Node.MapCache))
	for i := range m.now.Node.MapCache {
		e := eid{entry: &m.now.Node.MapCache[i]}
		// One that was not there, or has come again, began at 0.
		var old statusd.Entry
		if b := before[key{e.entry.IID, e.entry.Prefix}]; b != nil && b.Created.Equal(e.entry.Created) {
			old = *b
		}
		e.outRate, e.inRate = m.rate(e.entry.Out, old.Out), m.rate(e.entry.In, old.In)
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b eid) int {
		return cmp.Or(
			cmp.Compare(m.order(b.outRate, b.inRate, b.entry.Out, b.entry.In), m.order(a.outRate, a.inRate, a.entry.Out, a.entry.In)),
			cmp.Compare(a.entry.IID, b.entry.IID), a.entry.Prefix.Addr().Compare(b.entry.Prefix.Addr()), cmp.Compare(a.entry.Prefix.Bits(), b.entry.Prefix.Bits()),
		)
	})
	rows := make([][]string, 1, 1+len(es))
	rows[0] = []string{"EID-PREFIX", "OUT bit/s", "IN bit/s", "EXPIRES", "OUT packets/s", "IN packets/s", "OUT total", "IN total", "LOCATORS pri/wgt"}
	for _, e := range es {
		to := make([]string, 0, max(1, len(e.entry.RLOCs)))
		for _, r := range e.entry.RLOCs {
			to = append(to, fmt.Sprintf("%v %d/%d", r.Addr, r.Priority, r.Weight))
		}
		if len(to) == 0 {
			to = append(to, cmp.Or(e.entry.Action, "negative"))
		}
		name := e.entry.Prefix.String()
		if e.entry.IID != 0 {
			name = fmt.Sprintf("[%d] %s", e.entry.IID, name)
		}
		expires := "never"
		if !e.entry.Expires.IsZero() {
			expires = round(e.entry.Expires.Sub(m.now.Time))
		}
		rows = append(rows, []string{
			name, amount(8 * e.outRate.octets), amount(8 * e.inRate.octets), expires, amount(e.outRate.packets), amount(e.inRate.packets),
			amount(float64(e.entry.Out.Octets)) + "B", amount(float64(e.entry.In.Octets)) + "B", strings.Join(to, ", "),
		})
	}
	return rows
}

// table writes rows in columns, the first of them as the head, at most limit of the others. Columns
// that the terminal has no room for are left out: half a number is a wrong one.
func (m model) table(b *strings.Builder, rows [][]string, limit int) {
	more := len(rows) - 1 - limit
	if more > 0 {
		rows = rows[:1+limit]
	}
	rows = m.fitting(rows)
	var t bytes.Buffer
	w := tabwriter.NewWriter(&t, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush() // into memory
	for i, line := range strings.Split(strings.TrimRight(t.String(), "\n"), "\n") {
		line = strings.TrimRight(line, " ")
		if m.width > 0 && len(line) > m.width {
			line = line[:m.width]
		}
		if i == 0 {
			line = head.Render(line)
		}
		fmt.Fprintln(b, line)
	}
	if more > 0 {
		fmt.Fprintln(b, dim.Render(fmt.Sprintf("and %d more", more)))
	}
	b.WriteString("\n")
}

// fitting leaves out the last columns until the others fit. The last one of all, which
// is text, may be cut.
func (m model) fitting(rows [][]string) [][]string {
	columns, end := len(rows[0]), 0
	for c := range columns {
		wide := 0
		for _, r := range rows {
			wide = max(wide, len(r[c]))
		}
		if c == columns-1 {
			wide = len(rows[0][c])
		}
		if m.width > 0 && c > 0 && end+wide > m.width {
			columns = c
			break
		}
		end += wide + 2
	}
	out := make([][]string, len(rows))
	for i, r := range rows {
		out[i] = r[:columns]
	}
	return out
}

func sum(a, b statusd.Counter) statusd.Counter {
	return statusd.Counter{Packets: a.Packets + b.Packets, Octets: a.Octets + b.Octets}
}

func joined(ps []netip.Prefix) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.String()
	}
	return strings.Join(s, " ")
}

func round(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Second).String()
}

// amount writes a number with three digits and a decimal prefix.
func amount(v float64) string {
	const prefixes = " kMGTPE"
	i := 0
	for v >= 999.5 && i < len(prefixes)-1 {
		v /= 1000
		i++
	}
	switch {
	case i == 0:
		return fmt.Sprintf("%.0f ", v)
	case v < 9.995:
		return fmt.Sprintf("%.2f %c", v, prefixes[i])
	case v < 99.95:
		return fmt.Sprintf("%.1f %c", v, prefixes[i])
	}
	return fmt.Sprintf("%.0f %c", v, prefixes[i])
}
