package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Answers are what a new node must be told.
type Answers struct {
	EIDs         []netip.Prefix // at least one
	MapServer    string         // address or name
	Key          Secret
	MapResolvers []string // empty: the Map-Server
	Interfaces   []string // at least one; patterns are possible
}

// ParseEIDs reads a list of EIDs, with commas or spaces between.
func ParseEIDs(text string) (out []netip.Prefix, err error) {
	for _, w := range Words(text) {
		p, ok := parsePrefix(w)
		if !ok {
			return nil, fmt.Errorf(notPrefix, w)
		}
		out = append(out, p.Masked())
	}
	if len(out) == 0 {
		return nil, errors.New("at least one EID is needed, such as 192.0.2.1 or 2001:db8::1")
	}
	return out, nil
}

// Words splits a list with commas or spaces between.
func Words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

// File is the text of the configuration file that the answers make, with comments.
// An EID-Prefix that is no host makes the node an xTR.
func (a Answers) File() string {
	var b strings.Builder
	mode, what := ModeMN, "a mobile node: this host alone"
	for _, p := range a.EIDs {
		if !p.IsSingleIP() {
			mode, what = ModeXTR, "a router for the hosts behind the EID-Prefixes"
		}
	}
	resolvers := a.MapResolvers
	if len(resolvers) == 0 {
		resolvers = []string{a.MapServer}
	}
	fmt.Fprintf(&b, `# Configuration of lispmn, written by "lispmn init". After a change:
#
#     lispmn check FILE     says what is wrong with it
#     lispconf reload       makes a running node follow it

# %s.
operating-mode = %s

# How much is said in the log: 0 what is wrong, 1 changes of state, 2 and 3 every
# message.
debug = 1

# Who is asked where an EID is.
map-resolver = { %s }

# Who is told where we are. key-type 1 is HMAC-SHA-1-96, 2 HMAC-SHA-256-128.
map-server {
    address     = %s
    key-type    = 2
    key         = %s
    proxy-reply = off          # on: the Map-Server answers for us
}

# Who we are, and the interfaces we are reached by: of those with the lowest
# priority each gets its weight's share.
`, what, mode, quoteAll(resolvers), quote(a.MapServer), quote(string(a.Key)))
	for _, p := range a.EIDs {
		fmt.Fprintf(&b, "database-mapping {\n    eid-prefix = %s\n    ttl        = 60            # minutes that others may remember our locators\n", p)
		for _, i := range a.Interfaces {
			for _, v := range []int{4, 6} {
				fmt.Fprintf(&b, "    rloc-iface { interface = %s ip_version = %d priority = 1 weight = 100 }\n", quote(i), v)
			}
		}
		b.WriteString("}\n")
	}
	b.WriteString(`
# Destinations without LISP are reached directly, from the EID. Where the network
# does not let such packets pass, a Proxy-ETR takes them:
#proxy-etr { address = 203.0.113.9 }

# Locators of others are probed every 30 s. To notice sooner that one is gone:
#rloc-probing {
#    rloc-probe-interval         = 30     # seconds
#    rloc-probe-retries          = 2
#    rloc-probe-retries-interval = 1
#    rloc-probe-fast-interval    = 200    # milliseconds, where packets go; 0: no faster
#}
`)
	return b.String()
}

// quote makes a value of any text.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func quoteAll(ss []string) string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = quote(s)
	}
	return strings.Join(out, ", ")
}
