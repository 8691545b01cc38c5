package tun

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, x := range s {
		ps = append(ps, netip.MustParsePrefix(x))
	}
	return ps
}

// list prints a plan: addresses, routes, and rules in the order of their priority.
func (p plan) list() string {
	var b strings.Builder
	for _, a := range p.addrs {
		b.WriteString("addr " + a.String() + "\n")
	}
	for _, r := range p.routes {
		if r.throw {
			b.WriteString("throw ")
		}
		b.WriteString(r.dst.String())
		if r.src.IsValid() {
			b.WriteString(" src " + r.src.String())
		}
		b.WriteString("\n")
	}
	for _, r := range p.rules {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

func TestPlan(t *testing.T) {
	t.Parallel()
	throws4 := "throw 169.254.0.0/16\nthrow 224.0.0.0/4\nthrow 255.255.255.255/32\n"
	throws6 := "throw fe80::/10\nthrow ff00::/8\n"
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"IPv4 mobile node", Config{EIDs: prefixes("192.0.2.1/32")}, "addr 192.0.2.1\n" + throws4 + `0.0.0.0/0 src 192.0.2.1
4346: from all nop
4341: from 192.0.2.1 lookup 4341
4343: from 0.0.0.0 iif lo lookup main suppress_prefixlength 0
4344: from 0.0.0.0 iif lo lookup 4341
`},
		{"IPv6 mobile node", Config{EIDs: prefixes("2001:db8::1/128")}, "addr 2001:db8::1\n" + throws6 + `::/0 src 2001:db8::1
4346: from all nop
4341: from 2001:db8::1 lookup 4341
4343: from all iif lo lookup main suppress_prefixlength 0
4344: from 2001:db8::1 iif lo find_saddr lookup 4341
`},
		{"only some destinations", Config{
			EIDs: prefixes("192.0.2.1/32", "2001:db8::1/128"), Destinations: prefixes("198.51.100.7/24", "2001:db8:5::/48"),
		}, "addr 192.0.2.1\naddr 2001:db8::1\n" + throws4 + "0.0.0.0/0 src 192.0.2.1\n" + throws6 + `::/0 src 2001:db8::1
4346: from all nop
4341: from 192.0.2.1 lookup 4341
4344: from 0.0.0.0 to 198.51.100.0/24 iif lo lookup 4341
4346: from all nop
4341: from 2001:db8::1 lookup 4341
4344: from 2001:db8::1 to 2001:db8:5::/48 iif lo find_saddr lookup 4341
`},
		{"a site, with an address of the host in it", Config{
			EIDs: prefixes("192.0.2.129/25"), Table: 7, RulePriority: 100,
		}, "addr 192.0.2.129\n" + throws4 + `0.0.0.0/0 src 192.0.2.129
106: from all nop
101: from 192.0.2.128/25 lookup 7
103: from 0.0.0.0 iif lo lookup main suppress_prefixlength 0
104: from 0.0.0.0 iif lo lookup 7
`},
		{"a site, without", Config{EIDs: prefixes("::ffff:192.0.2.0/121")}, throws4 + `0.0.0.0/0
4346: from all nop
4341: from 192.0.2.0/25 lookup 4341
`},
		{"a router", Config{EIDs: prefixes("192.0.2.129/25", "198.51.100.1/32", "2001:db8::/48"), Router: true}, "addr 192.0.2.129\naddr 198.51.100.1\n" + throws4 + `throw 192.0.2.128/25
0.0.0.0/0 src 192.0.2.129
` + throws6 + `throw 2001:db8::/48
::/0
4346: from all nop
4341: from 192.0.2.128/25 lookup 4341
4341: from 198.51.100.1 lookup 4341
4343: from 0.0.0.0 iif lo lookup main suppress_prefixlength 0
4344: from 0.0.0.0 iif lo lookup 4341
4346: from all nop
4341: from 2001:db8::/48 lookup 4341
`},
		{"a proxy", Config{Destinations: prefixes("192.0.2.0/24", "198.51.100.0/24"), Proxy: true}, throws4 + `0.0.0.0/0
4346: from all nop
4344: from all to 192.0.2.0/24 lookup 4341
4344: from all to 198.51.100.0/24 lookup 4341
`},
		{"marks count", Config{EIDs: prefixes("192.0.2.1/32"), MarkMask: 0xff}, "addr 192.0.2.1\n" + throws4 + `0.0.0.0/0 src 192.0.2.1
4346: from all nop
4341: from 192.0.2.1 fwmark 0x0/0xff lookup 4341
4343: from 0.0.0.0 iif lo lookup main suppress_prefixlength 0
4344: from 0.0.0.0 fwmark 0x0/0xff iif lo lookup 4341
`},
		{"nothing", Config{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := tt.cfg.withDefaults()
			require.NoError(t, err)
			assert.Equal(t, tt.want, makePlan(cfg).list())
		})
	}
}

func TestMarkedRules(t *testing.T) {
	t.Parallel()
	cfg, err := Config{EIDs: prefixes("192.0.2.1/32", "2001:db8::1/128"), MarkMask: 0xffff}.withDefaults()
	require.NoError(t, err)
	p := makePlan(cfg)
	assert.Equal(t, `4341: from 192.0.2.1 fwmark 0x7/0xffff lookup 43410003
4344: from 0.0.0.0 fwmark 0x7/0xffff iif lo lookup 43410003
4341: from 2001:db8::1 fwmark 0x7/0xffff lookup 43410003
4344: from 2001:db8::1 fwmark 0x7/0xffff iif lo find_saddr lookup 43410003
`, plan{rules: p.marked(cfg, 7, cfg.MarkTable+3)}.list())
	assert.Equal(t, `4342: from 192.0.2.1 lookup 43410000
4345: from 0.0.0.0 iif lo lookup 43410000
4342: from 2001:db8::1 lookup 43410000
4345: from 2001:db8::1 iif lo find_saddr lookup 43410000
`, plan{rules: p.marked(cfg, 0, cfg.MarkTable)}.list())
}

func TestBypass(t *testing.T) {
	t.Parallel()
	cfg, err := Config{}.withDefaults()
	require.NoError(t, err)
	assert.Equal(t, "4340: from 203.0.113.1 goto 4346", bypass(cfg, netip.MustParseAddr("203.0.113.1")).String())
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"long name":               {Name: "sixteen-octets-x"},
		"MTU below 1280 and IPv6": {EIDs: prefixes("2001:db8::1/128"), MTU: 1279},
		"MTU below 576":           {MTU: 575},
		"MTU too large":           {MTU: 65536},
		"main table":              {Table: 254},
		"no prefix":               {EIDs: []netip.Prefix{{}}},
		"all addresses":           {EIDs: prefixes("0.0.0.0/0")},
		"multicast":               {EIDs: prefixes("224.0.0.1/32")},
		"loopback":                {EIDs: prefixes("127.0.0.1/32")},
		"link-local":              {EIDs: prefixes("fe80::1/128")},
		"unspecified":             {EIDs: prefixes("::/128")},
		"mapped, too short":       {EIDs: prefixes("::ffff:192.0.2.1/95")},
		"twice":                   {EIDs: prefixes("192.0.2.1/24", "192.0.2.2/24")},
		"bad destination":         {Destinations: prefixes("ff02::1/128")},
		"proxy for everything":    {Proxy: true},
		"fewer queues than one":   {Queues: -1},
		"too many queues":         {Queues: 257},
		"queues of a descriptor":  {Queues: 2, File: os.Stdin},
		"our table for a mark":    {Table: 43410255},
		"main table for a mark":   {MarkTable: 250},
		"no tables for marks":     {MarkTable: 1<<32 - 255},
	} {
		_, err := cfg.withDefaults()
		assert.ErrorIs(t, err, ErrConfig, name)
	}
}
