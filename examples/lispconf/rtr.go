package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

func relayTable(w io.Writer, st *statusd.Status) {
	rows := newTable(w, "EID-prefix", "Node", "Seen as", "Map-Server", "Confirmed", "Expires")
	for _, r := range st.RTR.Relays {
		rows.row(key(r.IID, r.Prefix), r.Local.String(), r.Global.String(), r.MapServer.String(),
			since(st.Time, r.Verified), clock(r.Expires.Sub(st.Time)))
	}
	rows.end()
}

func rtrOverview(w io.Writer, st *statusd.Status) {
	for _, l := range st.RTR.Locals {
		state := "down"
		if l.Up {
			state = "up"
		}
		fmt.Fprintf(w, "RTR at %v, %s\n", l.Addr, state)
	}
	fmt.Fprintln(w, "\nNodes behind NATs")
	relayTable(w, st)
	fmt.Fprintln(w, "\nMap-cache")
	entryTable(w, st.Time, st.RTR.MapCache)
}

func trafficTable(w io.Writer, t *statusd.Traffic) {
	fmt.Fprintln(w, "Packets and octets")
	rows := newTable(w)
	rows.row("encapsulated", counter(t.Encapsulated))
	rows.row("decapsulated", counter(t.Decapsulated))
	rows.row("forwarded natively", counter(t.Native))
	rows.row("waited for a mapping", fmt.Sprint(t.Held))
	if k := t.Kernel; k != nil {
		rows.row("encapsulated by the kernel", counter(k.Encapsulated))
		rows.row("decapsulated by the kernel", counter(k.Decapsulated))
	}
	rows.end()
	if t.UserSpace != "" {
		fmt.Fprintf(w, "Packets are forwarded in user space: %s\n", t.UserSpace)
	}
	if t.Kernel != nil && t.Kernel.AllSlow {
		fmt.Fprintln(w, "The kernel leaves all packets to user space now: a closed network, a policy, or a map-cache that does not fit")
	}
	if t.Kernel != nil {
		counts(w, "Packets that the kernel left to user space", t.Kernel.Slow)
	}
}

// counts prints a table of counters by name, if there are any.
func counts(w io.Writer, title string, m map[string]uint64) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintln(w, title)
	rows := newTable(w)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		rows.row(k, fmt.Sprint(m[k]))
	}
	rows.end()
}
