package mapserverd

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/rtrd"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// sharedKey is that of a Map-Server and an RTR in one process, where there are both:
// each knows the other without a word in the file. It is new at each start.
type sharedKey struct{ key lisp.Key }

// sharedKeyLen is the length of the key, in octets.
const sharedKeyLen = 32

// newSharedKey makes the key, empty if there are not both. It refuses a file that
// makes this host, which has these addresses, a stranger to itself.
func newSharedKey(c *conf.MapServerNode, addrs []netip.Addr) (k sharedKey, err error) {
	if c.RTR == nil || !c.ServesSites() {
		return k, nil
	}
	const known = "%s %v is this host, whose Map-Server and RTR know each other: leave it out"
	for _, m := range c.RTR.MapServers {
		if slices.Contains(addrs, m.Addr) {
			return k, fmt.Errorf(known, "rtr-ms-node", m.Addr)
		}
	}
	for _, r := range c.NAT.RTRs {
		if slices.Contains(addrs, r.Addr) {
			return k, fmt.Errorf(known, "ms-rtr-node", r.Addr)
		}
	}
	k.key = lisp.Key{Algorithm: lisp.AlgorithmHMACSHA256, Secret: make([]byte, sharedKeyLen)}
	if _, err := rand.Read(k.key.Secret); err != nil {
		return k, fmt.Errorf("key of Map-Server and RTR: %w", err)
	}
	return k, nil
}

// mapServers is the own Map-Server as the RTR knows it: by each address that a node
// may have for it.
func (k sharedKey) mapServers(addrs []netip.Addr) (ms []natt.RTRMapServer) {
	if k.key.Secret == nil {
		return nil
	}
	for _, a := range addrs {
		ms = append(ms, natt.RTRMapServer{Addr: a, Key: k.key})
	}
	return ms
}

// rtrs is the own RTR as the Map-Server tells nodes of it.
func (k sharedKey) rtrs(r *rtrd.RTR) (rs []mapserver.RTR) {
	if k.key.Secret == nil {
		return nil
	}
	for _, a := range r.Addrs() {
		rs = append(rs, mapserver.RTR{Addr: a, Key: k.key})
	}
	return rs
}

// moved says which addresses this host has now, and no more: those of the start are what
// Map-Server and RTR know each other by, and what nodes are told.
func (k sharedKey) moved(before, now []netip.Addr) []string {
	if k.key.Secret == nil {
		return nil
	}
	var moves []string
	for _, a := range before {
		if !slices.Contains(now, a) {
			moves = append(moves, "- "+a.String())
		}
	}
	for _, a := range now {
		if !slices.Contains(before, a) {
			moves = append(moves, "+ "+a.String())
		}
	}
	if len(moves) == 0 {
		return nil
	}
	slices.Sort(moves)
	return []string{fmt.Sprintf("addresses of this host: %s (its Map-Server and RTR know each other by those of the start)", strings.Join(moves, ", "))}
}
