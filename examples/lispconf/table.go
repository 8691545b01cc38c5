package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// table prints rows in columns, indented.
type table struct {
	*tabwriter.Writer
	text *bytes.Buffer
	to   io.Writer
}

func newTable(w io.Writer, head ...string) table {
	text := new(bytes.Buffer)
	t := table{tabwriter.NewWriter(text, 0, 0, 3, ' ', 0), text, w}
	if len(head) > 0 {
		t.row(head...)
	}
	return t
}

func (t table) row(cells ...string) { fmt.Fprintln(t, "   "+strings.Join(cells, "\t")) }

// end prints what the rows are. Errors of the writer come again with the next.
func (t table) end() {
	_ = t.Flush()
	for line := range strings.Lines(t.text.String()) {
		fmt.Fprintln(t.to, strings.TrimRight(line, " \n"))
	}
}

// clock prints a span of time as hours, minutes and seconds.
func clock(d time.Duration) string {
	s := int64(max(d, 0).Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

func since(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return clock(now.Sub(t))
}

func rtt(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// entryTable prints a map-cache. The line of an entry has what was exchanged with its
// EIDs, those of its locators what was exchanged with all EIDs behind them.
func entryTable(w io.Writer, now time.Time, es []statusd.Entry) {
	entries(w, now, es, func(e *statusd.Entry) {
		if len(e.RLOCs) == 0 {
			fmt.Fprintf(w, ", %s\n", e.Action)
			return
		}
		fmt.Fprintf(w, ", data in/out %d/%d\n", e.In.Packets, e.Out.Packets)
		rows := newTable(w, "Locator", "State", "Pri/Wgt", "RTT", "Data in/out (all EIDs)")
		for _, r := range e.RLOCs {
			rows.row(r.Addr.String(), r.State, fmt.Sprintf("%d/%d", r.Priority, r.Weight), rtt(r.RTT), fmt.Sprintf("%d/%d", r.In.Packets, r.Out.Packets))
		}
		rows.end()
	})
}

// databaseTable prints our own mappings, of which nothing is measured.
func databaseTable(w io.Writer, now time.Time, es []statusd.Entry) {
	entries(w, now, es, func(e *statusd.Entry) {
		fmt.Fprintln(w)
		rows := newTable(w, "Locator", "State", "Pri/Wgt")
		for _, r := range e.RLOCs {
			rows.row(r.Addr.String(), r.State, fmt.Sprintf("%d/%d", r.Priority, r.Weight))
		}
		rows.end()
	})
}

// entries prints the line of each entry, which rest goes on with.
func entries(w io.Writer, now time.Time, es []statusd.Entry, rest func(*statusd.Entry)) {
	if len(es) == 0 {
		fmt.Fprintln(w, "empty")
	}
	for i := range es {
		e := &es[i]
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "EID-prefix %s", key(e.IID, e.Prefix))
		if !e.Created.IsZero() { // what is ours was there before
			fmt.Fprintf(w, ", uptime %s", since(now, e.Created))
		}
		expires := "never"
		if !e.Expires.IsZero() {
			expires = clock(e.Expires.Sub(now))
		}
		fmt.Fprintf(w, ", expires %s, via %s", expires, e.Origin)
		rest(e)
	}
}

func registrationTable(w io.Writer, st *statusd.Status) {
	rows := newTable(w, "Map-Server", "State", "Confirmed", "RTT", "EID-prefixes", "Last error")
	for _, r := range st.Node.Registrations {
		rows.row(r.MapServer.String(), r.State, since(st.Time, r.Since), rtt(r.RTT), strings.Join(r.EIDs, " "), r.LastError)
	}
	rows.end()
}

func pathTable(w io.Writer, ps []statusd.Path) {
	rows := newTable(w, "Locator", "From", "State", "RTT", "Probes", "Answered")
	for _, p := range ps {
		rows.row(p.Remote.String(), p.Local.String(), p.State, rtt(p.RTT), fmt.Sprint(p.Sent), fmt.Sprint(p.Answered))
	}
	rows.end()
}

func rlocTable(w io.Writer, n *statusd.Node) {
	fmt.Fprintln(w, "Our locators:")
	rows := newTable(w, "Locator", "State", "Pri/Wgt", "Interface")
	for _, l := range n.Locals {
		state := "down"
		if l.Up {
			state = "up"
		}
		name := fmt.Sprint(l.IfIndex)
		for _, i := range n.Interfaces {
			if i.Index == l.IfIndex {
				name = i.Name
			}
		}
		rows.row(l.Addr.String(), state, fmt.Sprintf("%d/%d", l.Priority, l.Weight), name)
	}
	rows.end()
	fmt.Fprintln(w, "\nPaths to locators of others:")
	pathTable(w, n.Paths)
	fmt.Fprintln(w, "\nTraffic with locators of others, in packets and octets:")
	rows = newTable(w, "Locator", "In", "Out")
	for _, l := range n.Traffic.Locators {
		rows.row(l.Addr.String(), counter(l.In), counter(l.Out))
	}
	rows.end()
}

func counter(c statusd.Counter) string { return fmt.Sprintf("%d/%d", c.Packets, c.Octets) }

func natTable(w io.Writer, st *statusd.Status) {
	rows := newTable(w, "Locator", "State", "Seen as", "RTR", "RTT", "Confirmed", "Reason")
	for _, b := range st.Node.NAT {
		global, rtr := "-", "-"
		if b.Global.IsValid() {
			global = b.Global.String()
		}
		if b.RTR.IsValid() {
			rtr = b.RTR.String()
		}
		rows.row(b.Local.String(), b.State, global, rtr, rtt(b.RTT), since(st.Time, b.LastNotify), b.Reason)
	}
	rows.end()
}

func interfaceTable(w io.Writer, n *statusd.Node) {
	rows := newTable(w, "Interface", "Link", "Locator", "IPv4", "IPv6", "Addresses")
	for _, i := range n.Interfaces {
		link, loc := "down", "no"
		if i.Up {
			link = "up"
		}
		if i.Locator {
			loc = "yes"
		}
		addrs := make([]string, len(i.Addrs))
		for j, a := range i.Addrs {
			addrs[j] = a.String()
		}
		rows.row(i.Name, link, loc, i.IPv4, i.IPv6, strings.Join(addrs, " "))
	}
	rows.end()
}

func siteTable(w io.Writer, m *statusd.MapServer) {
	rows := newTable(w, "Site", "Registered", "EID-prefixes")
	for _, s := range m.Sites {
		up := 0
		for _, r := range m.Registrations {
			if r.Site == s.Name {
				up++
			}
		}
		rows.row(s.Name, fmt.Sprint(up), strings.Join(s.Prefixes, " "))
	}
	rows.end()
}

func registeredTable(w io.Writer, st *statusd.Status) {
	rows := newTable(w, "EID-prefix", "Site", "From", "Expires", "Locators")
	for _, r := range st.MapServer.Registrations {
		ls := make([]string, 0, len(r.RLOCs))
		for _, l := range r.RLOCs {
			ls = append(ls, fmt.Sprintf("%v %s %d/%d", l.Addr, l.State, l.Priority, l.Weight))
		}
		from := "-"
		if r.From.IsValid() {
			from = r.From.String()
		}
		rows.row(key(r.IID, r.Prefix), r.Site, from, clock(r.Expires.Sub(st.Time)), strings.Join(ls, ", "))
	}
	rows.end()
}

func statsTable(w io.Writer, st *statusd.Status) {
	of := ""
	if r := st.RTR; r != nil {
		trafficTable(w, &r.Traffic)
		counts(w, "Packets dropped", r.Traffic.Drops)
		counts(w, "Messages", r.Counters)
		counts(w, "Refused", r.Refused)
		of = " of the Map-Server"
	}
	if m := st.MapServer; m != nil {
		counts(w, "Messages"+of, m.Counters)
		counts(w, "Refused"+of, m.Refused)
	}
	n := st.Node
	if n == nil {
		return
	}
	trafficTable(w, &n.Traffic)
	counts(w, "Packets dropped", n.Traffic.Drops)
	counts(w, "Control messages", n.Control)
	counts(w, "Control messages dropped", n.ControlDrops)
}

func overview(w io.Writer, st *statusd.Status) {
	fmt.Fprintf(w, "%s %s, process %d, up %s\n", st.Program, st.Version, st.PID, since(st.Time, st.Started))
	if n := st.Node; n != nil {
		fmt.Fprintf(w, "%s, MTU %d, EIDs %s\n\nRegistrations\n", n.Device, n.MTU, join(n.EIDs))
		registrationTable(w, st)
		if len(n.Refused) > 0 {
			fmt.Fprintln(w, "\nThe system refuses")
			refusedTable(w, st)
		}
		fmt.Fprintln(w, "\nMap-cache")
		entryTable(w, st.Time, n.MapCache)
	}
	if st.RTR != nil {
		rtrOverview(w, st)
	}
	if m := st.MapServer; m != nil {
		fmt.Fprintln(w, "\nSites")
		siteTable(w, m)
		fmt.Fprintln(w, "\nRegistrations")
		registeredTable(w, st)
	}
}

func refusedTable(w io.Writer, st *statusd.Status) {
	rows := newTable(w, "What", "Since", "Tries", "Reason")
	for _, r := range st.Node.Refused {
		rows.row(r.What, since(st.Time, r.Since), fmt.Sprint(r.Tries), r.Reason)
	}
	rows.end()
}

func join(ps []netip.Prefix) string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return strings.Join(out, " ")
}

func traceText(w io.Writer, t *statusd.Trace) {
	fmt.Fprintf(w, "%v -> %v: %s\n", t.Src, t.Dst, t.Does)
	if t.Does == "encapsulate" {
		port := "?"
		if t.SourcePort != 0 {
			port = fmt.Sprint(t.SourcePort)
		}
		rows := newTable(w)
		rows.row("to", netip.AddrPortFrom(t.Locator, t.Port).String())
		rows.row("from", fmt.Sprintf("%v, source port %s", t.Local, port))
		rows.row("interface", t.Interface)
		rows.row("largest packet", fmt.Sprintf("%d octets", t.MTU))
		rows.end()
	}
	fmt.Fprintln(w, "because")
	for _, why := range t.Why {
		fmt.Fprintln(w, "   "+why)
	}
}
