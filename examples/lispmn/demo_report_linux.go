package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// report is the result of the demo, as -json prints it.
type report struct {
	OK            bool             `json:"ok"`
	Error         string           `json:"error,omitempty"` // why it could not start
	Version       string           `json:"version,omitempty"`
	Seconds       float64          `json:"seconds"`
	Steps         []stepReport     `json:"steps"`
	Pings         []pingReport     `json:"pings"`
	Transfers     []transferReport `json:"transfers"`
	Registrations []registryReport `json:"registrations"`
	Nodes         []nodeReport     `json:"nodes"`
	Events        []hostEvent      `json:"events"`
}

// stepReport is how one step went.
type stepReport struct {
	Name    string   `json:"name"`
	OK      bool     `json:"ok"`
	Seconds float64  `json:"seconds"`
	Seen    []string `json:"seen"`
	Error   string   `json:"error,omitempty"`
	LookAt  []string `json:"lookAt,omitempty"`
}

// path says between whom and over what something was measured.
type path struct {
	From string `json:"from"`
	Dest string `json:"dest"`
	EID  string `json:"eid"`  // family of the addresses used: IPv4 or IPv6
	Over string `json:"over"` // family of the locators, or "native"
}

type pingReport struct {
	path
	probe.PingResult
}

type transferReport struct {
	path
	probe.TransferResult
}

// registryReport is what the Map-Server knew at the end of a part of the demo.
type registryReport struct {
	Over string `json:"over"`
	statusd.SiteEntry
}

// nodeReport is the state of a node at the end of a part of the demo.
type nodeReport struct {
	Host string `json:"host"`
	Over string `json:"over"`
	statusd.Node
	Time time.Time `json:"time"`
}

// snapshot asks the nodes and the Map-Server for the summary. over names the
// part of the demo that ends.
func (d *demoLab) snapshot(ctx context.Context, over string) error {
	ms, err := d.children[siteMS.name].ready(ctx)
	if err != nil {
		return err
	}
	for _, r := range ms.MapServer.Registrations {
		d.registry = append(d.registry, registryReport{over, r})
	}
	for _, s := range []site{siteA, siteB} {
		st, err := d.children[s.name].ready(ctx)
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, nodeReport{Host: s.name, Over: over, Node: *st.Node, Time: st.Time})
	}
	return nil
}

// fill completes the report with what was measured.
func (d *demoLab) fill(r *report) {
	r.Seconds = time.Since(d.log.start).Seconds()
	r.Pings, r.Transfers, r.Registrations, r.Nodes, r.Events = d.pings, d.transfers, d.registry, d.nodes, d.log.all()
}

// print writes the summary tables.
func (r report) print(w io.Writer) {
	fmt.Fprintln(w)
	r.printRegistrations(w)
	r.printMapCaches(w)
	r.printTraffic(w)
	r.printPings(w)
	r.printTransfers(w)
	failed := "no step"
	for i, s := range r.Steps {
		if !s.OK {
			failed = fmt.Sprintf("step %d, %s", i+1, s.Name)
		}
	}
	if r.OK {
		fmt.Fprintf(w, "All %d steps verified in %.1f s.\n", len(r.Steps), r.Seconds)
	} else {
		fmt.Fprintf(w, "FAILED: %s, after %.1f s.\n", failed, r.Seconds)
	}
}

// table prints rows under a title, with aligned columns.
func table(w io.Writer, title, header string, rows [][]any) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(w, title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  "+header)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = fmt.Sprint(c)
		}
		fmt.Fprintln(tw, "  "+strings.Join(cells, "\t"))
	}
	_ = tw.Flush()
	fmt.Fprintln(w)
}

func (r report) printRegistrations(w io.Writer) {
	rows := make([][]any, 0, len(r.Registrations))
	for _, e := range r.Registrations {
		rows = append(rows, []any{e.Over, e.Prefix, e.Site, e.From, locators(e.RLOCs)})
	}
	table(w, "Registrations at the Map-Server", "over\tEID-prefix\tsite\tfrom\tlocators", rows)
}

func (r report) printMapCaches(w io.Writer) {
	var rows [][]any
	for _, n := range r.Nodes {
		for _, e := range n.MapCache {
			what := locators(e.RLOCs)
			if len(e.RLOCs) == 0 {
				what = "negative, " + e.Action
			}
			expires := "never"
			if !e.Expires.IsZero() {
				expires = "in " + e.Expires.Sub(n.Time).Round(time.Second).String()
			}
			rows = append(rows, []any{n.Host, n.Over, e.Prefix, what, "via " + e.Origin, expires})
		}
	}
	table(w, "Map-caches", "host\tover\tEID-prefix\tlocators\torigin\texpires", rows)
}

func locators(rs []statusd.RLOC) string {
	ss := make([]string, 0, len(rs))
	for _, r := range rs {
		ss = append(ss, fmt.Sprintf("%s %s %d/%d", r.Addr, r.State, r.Priority, r.Weight))
	}
	return strings.Join(ss, ", ")
}

func (r report) printTraffic(w io.Writer) {
	var rows [][]any
	for _, n := range r.Nodes {
		for _, l := range n.Traffic.Locators {
			rows = append(rows, []any{n.Host, n.Over, l.Addr, l.Out.Packets, l.In.Packets, l.Out.Octets, l.In.Octets})
		}
		if c := n.Traffic.Native; c.Packets > 0 {
			rows = append(rows, []any{n.Host, n.Over, "(native)", c.Packets, "-", c.Octets, "-"})
		}
		if n.Traffic.Held > 0 {
			rows = append(rows, []any{n.Host, n.Over, "(held for a mapping)", n.Traffic.Held, "-", "-", "-"})
		}
		for _, why := range slices.Sorted(maps.Keys(n.Traffic.Drops)) {
			rows = append(rows, []any{n.Host, n.Over, "(dropped: " + why + ")", n.Traffic.Drops[why], "-", "-", "-"})
		}
	}
	table(w, "Traffic per locator (inner packets)", "host\tover\tlocator\tpackets out\tpackets in\toctets out\toctets in", rows)
}

func (r report) printPings(w io.Writer) {
	rows := make([][]any, 0, len(r.Pings))
	for _, p := range r.Pings {
		_, median := p.MinMedian()
		rows = append(rows, []any{p.From + " to " + p.Dest, p.EID, p.Over, fmt.Sprintf("%d/%d", p.Received, p.Sent), fmt.Sprintf("%.0f%%", p.Loss()), ms(p.First()), ms(median)})
	}
	table(w, "Ping", "path\tEID\tover\treceived\tloss\tfirst RTT\tmedian RTT", rows)
}

func (r report) printTransfers(w io.Writer) {
	rows := make([][]any, 0, len(r.Transfers))
	for _, t := range r.Transfers {
		rows = append(rows, []any{t.From + " to " + t.Dest, t.EID, t.Over, fmt.Sprintf("%d MiB", t.Octets>>20), ms(t.Connect), t.SYNRetransmits, t.Retransmits, fmt.Sprintf("%.0f Mbit/s", t.BitsPerSecond()/1e6)})
	}
	table(w, "TCP", "path\tEID\tover\tsent\tconnect\tSYN retransmitted\tretransmitted\tthroughput", rows)
}

// ms prints a time in milliseconds.
func ms(d time.Duration) string {
	if d < 0 {
		return "lost"
	}
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
