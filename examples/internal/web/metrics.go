package web

import (
	"context"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// There are no metrics by EID-Prefix. A map-cache has up to hundreds of thousands of
// entries, which come and go by what people talk to: each would be time series of its own,
// and Prometheus keeps those of all that have ever been. A list of the busiest ones would be
// worse, since a series that drops out of it and comes back says nothing. Who wants to
// know asks /status, which has the counters of each entry. Locators are the labels
// here: there are as many as sites, and they stay.

// collector makes metrics of a snapshot each time somebody collects them. So
// nothing is counted twice, and nothing is counted while nobody looks.
type collector struct {
	snapshot func(ctx context.Context) (statusd.Status, error)
}

// Describe says nothing, as which metrics there are depends on the program.
func (collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	st, err := c.snapshot(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		return
	}
	m := metrics{out}
	m.gauge("lisp_build_info", "The program and its version; always 1.", 1, labels{"program", st.Program, "version", st.Version})
	m.gauge("lisp_start_time_seconds", "When the program started, in seconds since 1970.", float64(st.Started.UnixMilli())/1e3, nil)
	if st.Node != nil {
		m.node(st.Node)
	}
	if st.MapServer != nil {
		m.mapServer(st.MapServer)
	}
	if r := st.RTR; r != nil {
		m.gauge("lisp_rtr_relays", "EID-Prefixes of nodes behind NATs that packets are relayed for.", float64(len(r.Relays)), nil)
		m.mapCache(r.MapCache)
		m.traffic(&r.Traffic)
		m.counters("lisp_rtr_messages_total", "Messages of the RTR, by kind.", "kind", r.Counters)
		m.counters("lisp_rtr_refused_total", "Messages that were not accepted, by reason.", "reason", r.Refused)
	}
}

// labels are names and values in turn.
type labels []string

type metrics struct{ out chan<- prometheus.Metric }

func (m metrics) add(kind prometheus.ValueType, name, help string, v float64, l labels) {
	var names, values []string
	for i := 0; i < len(l); i += 2 {
		names = append(names, l[i])
		values = append(values, l[i+1])
	}
	metric, err := prometheus.NewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, v, values...)
	if err != nil { // a label that is not UTF-8
		metric = prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
	}
	m.out <- metric
}

func (m metrics) gauge(name, help string, v float64, l labels) {
	m.add(prometheus.GaugeValue, name, help, v, l)
}

func (m metrics) counter(name, help string, v uint64, l labels) {
	m.add(prometheus.CounterValue, name, help, float64(v), l)
}

// counters makes one metric with a label of a table.
func (m metrics) counters(name, help, label string, table map[string]uint64) {
	for k, v := range table {
		m.counter(name, help, v, labels{label, k})
	}
}

func (m metrics) node(n *statusd.Node) {
	for _, l := range n.Locals {
		m.gauge("lisp_local_locator_up", "Whether an own locator can be used (1) or not (0).", truth(l.Up), labels{"address", l.Addr.String()})
	}
	m.registrations(n.Registrations)
	for _, b := range n.NAT {
		m.gauge("lisp_nat_binding_info", "What is known of an own locator's NAT; always 1.", 1,
			labels{"address", b.Local.String(), "state", b.State, "rtr", text(b.RTR)})
	}
	m.mapCache(n.MapCache)
	m.traffic(&n.Traffic)
	m.counters("lisp_control_messages_total", "Control messages, by kind and direction.", "kind", n.Control)
	m.counters("lisp_control_dropped_total", "Control messages that were not accepted or not sent, by reason.", "reason", n.ControlDrops)
}

// registrations merges those with one Map-Server: an xTR with many EIDs registers by several messages.
func (m metrics) registrations(rs []statusd.Registration) {
	type sum struct {
		registered, all int
		rtt             float64
		ack             float64
	}
	sums := make(map[string]*sum)
	for _, r := range rs {
		s := sums[r.MapServer.String()]
		if s == nil {
			s = &sum{}
			sums[r.MapServer.String()] = s
		}
		s.all++
		if r.State == "registered" {
			s.registered++
		}
		s.rtt = max(s.rtt, r.RTT.Seconds())
		if !r.Since.IsZero() {
			s.ack = max(s.ack, float64(r.Since.UnixMilli())/1e3)
		}
	}
	for addr, s := range sums {
		l := labels{"map_server", addr}
		m.gauge("lisp_registration_up", "Whether the Map-Server has confirmed all EID-Prefixes (1) or not (0).", truth(s.registered == s.all), l)
		m.gauge("lisp_registration_round_trip_seconds", "Time from the last Map-Register to its Map-Notify.", s.rtt, l)
		m.gauge("lisp_registration_last_notify_timestamp_seconds", "When the Map-Server confirmed last, in seconds since 1970; 0 for never.", s.ack, l)
	}
}

func (m metrics) mapCache(es []statusd.Entry) {
	var negative int
	up := make(map[string]bool)
	for _, e := range es {
		if len(e.RLOCs) == 0 {
			negative++
		}
		for _, r := range e.RLOCs {
			up[r.Addr.String()] = up[r.Addr.String()] || r.State == "up"
		}
	}
	const help = "Entries of the map-cache, with locators (forward) and without (negative)."
	m.gauge("lisp_map_cache_entries", help, float64(len(es)-negative), labels{"kind", "forward"})
	m.gauge("lisp_map_cache_entries", help, float64(negative), labels{"kind", "negative"})
	for addr, is := range up {
		m.gauge("lisp_locator_up", "Whether a remote locator of the map-cache can be reached (1) or not (0).", truth(is), labels{"address", addr})
	}
}

func (m metrics) traffic(t *statusd.Traffic) {
	for _, d := range []struct {
		what string
		c    statusd.Counter
	}{{"encapsulated", t.Encapsulated}, {"decapsulated", t.Decapsulated}, {"native", t.Native}} {
		m.counter("lisp_packets_total", "Inner packets, by what was done with them.", d.c.Packets, labels{"path", d.what})
		m.counter("lisp_bytes_total", "Octets of inner packets, by what was done with them.", d.c.Octets, labels{"path", d.what})
	}
	// One address can have several ports and formats.
	type pair struct{ out, in statusd.Counter }
	by := make(map[string]*pair)
	for _, l := range t.Locators {
		p := by[l.Addr.String()]
		if p == nil {
			p = &pair{}
			by[l.Addr.String()] = p
		}
		p.out.Packets += l.Out.Packets
		p.out.Octets += l.Out.Octets
		p.in.Packets += l.In.Packets
		p.in.Octets += l.In.Octets
	}
	for addr, p := range by {
		const packets, octets = "Inner packets to and from a remote locator.", "Octets of inner packets to and from a remote locator."
		m.counter("lisp_locator_packets_total", packets, p.out.Packets, labels{"address", addr, "direction", "out"})
		m.counter("lisp_locator_packets_total", packets, p.in.Packets, labels{"address", addr, "direction", "in"})
		m.counter("lisp_locator_bytes_total", octets, p.out.Octets, labels{"address", addr, "direction", "out"})
		m.counter("lisp_locator_bytes_total", octets, p.in.Octets, labels{"address", addr, "direction", "in"})
	}
	if k := t.Kernel; k != nil {
		const help = "Inner packets that did not enter user space, by what was done with them."
		m.counter("lisp_kernel_packets_total", help, k.Encapsulated.Packets, labels{"path", "encapsulated"})
		m.counter("lisp_kernel_packets_total", help, k.Decapsulated.Packets, labels{"path", "decapsulated"})
		m.counters("lisp_kernel_slow_packets_total", "Packets that the kernel left to user space, by reason.", "reason", k.Slow)
	}
	m.counter("lisp_held_packets_total", "Packets that had to wait for a mapping.", t.Held, nil)
	m.counter("lisp_released_packets_total", "Packets that waited for a mapping and then left.", t.Released, nil)
	m.gauge("lisp_held_packets", "Packets that wait for a mapping now.", float64(t.HeldNow), nil)
	m.counters("lisp_dropped_packets_total", "Packets that were dropped, by reason.", "reason", t.Drops)
}

func (m metrics) mapServer(s *statusd.MapServer) {
	m.gauge("lisp_map_server_sites", "Configured LISP sites.", float64(len(s.Sites)), nil)
	entries := make(map[string]int)
	for _, site := range s.Sites {
		entries[site.Name] = 0
	}
	for _, e := range s.Registrations {
		entries[e.Site]++
	}
	for site, n := range entries {
		m.gauge("lisp_map_server_registrations", "Registered EID-Prefixes of a site.", float64(n), labels{"site", site})
	}
	m.counters("lisp_map_server_messages_total", "Messages of the Map-Server and Map-Resolver, by kind.", "kind", s.Counters)
	m.counters("lisp_map_server_refused_total", "Messages that were not accepted, by reason.", "reason", s.Refused)
	for _, r := range s.MapServers {
		m.gauge("lisp_map_resolver_map_server_up", "Whether a Map-Server that requests are forwarded to answers (1) or not (0).",
			truth(r.Health == "up"), labels{"address", r.Addr.String()})
	}
}

// text is an address, or nothing.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
