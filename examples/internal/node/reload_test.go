package node

import (
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

const reloadable = `
map-resolver = { 203.0.113.1 }
map-server { address = 203.0.113.1 key = s }
database-mapping { eid-prefix = 198.51.100.1/32 ttl = 5 rloc-iface { interface = eth0 } }
static-map-cache { eid-prefix = 198.18.0.0/15 rloc = 203.0.113.3 }
`

// TestMerge: what a reload says is what differs, without secrets, and what cannot
// change while the node runs stays.
func TestMerge(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, next string
		want       statusd.Reloaded
	}{
		{"nothing but comments and lines", "# a comment\n" + reloadable, statusd.Reloaded{}},
		{"scalars", "debug = 2\nlog-file = x\nmap-request-retries = 3\n" + reloadable, statusd.Reloaded{
			Changes: []string{"debug: 0 -> 2", `log-file: "" -> "x"`, "map-request-retries: 0 -> 3"},
		}},
		{"lists", `map-resolver = { 203.0.113.2, 203.0.113.1 }
map-server { address = 203.0.113.1 key = hunter2 }
map-server { address = 203.0.113.2 key = s proxy-reply = on merge = on }
database-mapping { eid-prefix = 198.51.100.1/32 ttl = 6 rloc-iface { interface = eth0 } rloc-address { address = 203.0.113.9 priority = 2 } }
proxy-etr { address = 203.0.113.7 }`, statusd.Reloaded{Changes: []string{
			"map-resolver: + 203.0.113.2",
			"map-server: another key for 203.0.113.1 key-type 1 key-id 0", "map-server: + 203.0.113.2 key-type 1 key-id 0 proxy-reply merge",
			"database-mapping: - 198.51.100.1/32 ttl 5m0s by eth0 IPv4 1/100",
			"database-mapping: + 198.51.100.1/32 ttl 6m0s by 203.0.113.9 2/100, eth0 IPv4 1/100",
			"static-map-cache: - 198.18.0.0/15 by 203.0.113.3 1/100", "proxy-etr: + 203.0.113.7 1/100",
		}}},
		{"probing and LISP-SEC", "rloc-probing { rloc-probe-interval = 10 rloc-probe-retries = 1 rloc-probe-retries-interval = 1 }\n" +
			"lisp-sec { mode = preferred resolver-key { key = k } }" + reloadable, statusd.Reloaded{Changes: []string{
			"rloc-probing: default -> every 10s, 1 retries after 1s, fast 0s", "lisp-sec: off, 0 keys, hmac [], kdf [], protected-paths [], etr true -> preferred, 1 keys, hmac [], kdf [], protected-paths [], etr true",
		}}},
		{"another EID-Prefix", reloadable + "database-mapping { eid-prefix = 2001:db8::1/128 interface = eth0 }", statusd.Reloaded{Changes: []string{
			"database-mapping: + 2001:db8::1/128 ttl 10m0s by eth0 IPv4 1/100, eth0 IPv6 1/100",
		}}},
		{"needs a restart", "operating-mode = xTR\ntun-mtu = 1400\n" + strings.Replace(reloadable, "1/32", "0/24", 1), statusd.Reloaded{Restart: []string{
			"database-mapping: - 198.51.100.1/32 ttl 5m0s by eth0 IPv4 1/100 (they belong to the operating-mode or iid)",
			"database-mapping: + 198.51.100.0/24 ttl 5m0s by eth0 IPv4 1/100 (they belong to the operating-mode or iid)",
			"operating-mode: MN -> xTR (the device is made for it)",
			"tun device: {Name: MTU:0 Table:0} -> {Name: MTU:1400 Table:0} (the device is there)",
		}}},
	} {
		var got statusd.Reloaded
		before, next := parse(t, reloadable), parse(t, tc.next)
		cfg := merge(before, next, &got)
		assert.Equal(t, tc.want, got, tc.name)
		assert.NotContains(t, got.String(), "hunter2")
		if got.Restart != nil {
			assert.Equal(t, before.Device, cfg.Device)
			assert.Equal(t, before.Mappings, cfg.Mappings)
		} else {
			assert.Equal(t, next.MapServers, cfg.MapServers)
			assert.Equal(t, next.Mappings, cfg.Mappings, "line numbers too")
		}
	}
	var got statusd.Reloaded
	a := parse(t, "lisp-sec { mode = preferred resolver-key { key = k } }"+reloadable)
	merge(a, parse(t, "lisp-sec { mode = preferred resolver-key { key = l } }"+reloadable), &got)
	assert.Equal(t, []string{"lisp-sec: another key"}, got.Changes)
	got = statusd.Reloaded{}
	two := "map-resolver += 203.0.113.2\n"
	merge(parse(t, reloadable+two), parse(t, two+reloadable[len("\nmap-resolver = { 203.0.113.1 }\n"):]+"map-resolver += 203.0.113.1"), &got)
	assert.Equal(t, []string{"map-resolver: order: 203.0.113.2, 203.0.113.1"}, got.Changes)
}

// TestPartsAreComplete: each field of the configuration is one that a reload knows
// of.
func TestPartsAreComplete(t *testing.T) {
	t.Parallel()
	var c conf.Node
	listed := map[any]bool{&c.File: true, &c.Warnings: true}
	for _, p := range parts {
		listed[p.get(&c)] = true
	}
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		assert.True(t, listed[v.Field(i).Addr().Interface()], "%s: add it to parts", v.Type().Field(i).Name)
	}
}
