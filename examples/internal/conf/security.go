package conf

import (
	"net/netip"
	"slices"
	"strings"
)

// LISPSEC is LISP-SEC (RFC 9303) at an xTR. The zero value asks without.
type LISPSEC struct {
	Mode           string // off, preferred or required
	HMACs, KDFs    []string
	ProtectedPaths []netip.Prefix
	Keys           []SECKey // shared with Map-Resolvers
	NoETR          bool
}

// SECKey is a key of LISP-SEC.
type SECKey struct {
	Addr netip.Addr // who has it; invalid: everybody without one of his own
	Key  Key        // ID and secret only
	Null bool       // One-Time Keys are not wrapped, on protected paths
}

// MapServerSEC is LISP-SEC at a Map-Server and Map-Resolver.
type MapServerSEC struct {
	ITRKeys        []Key
	MapServers     []SECKey // of the resolver-entries
	ProtectedPaths []netip.Prefix
}

// Closed is what only trusted and closed networks may use.
type Closed struct {
	MapVersions, LocatorStatusBits, EchoNonce bool
}

// Names of functions of LISP-SEC, as in RFC 9303.
var (
	hmacNames = []string{"AUTH-HMAC-SHA-1-96", "AUTH-HMAC-SHA-256-128"}
	kdfNames  = []string{"HKDF-SHA1-128", "HKDF-SHA256"}
	secModes  = []string{"off", "preferred", "required"}
	wrapNames = []string{"AES-KEY-WRAP-128", "NULL-KEY-WRAP-128"}
)

func securityOptions(o options) {
	key := options{"address": {}, "key": {}, "key-id": number(0, maxOctet)}
	o["lisp-sec"] = option{kind: kindSection, once: true, role: roleXTR | roleMS, sub: options{
		"mode": {role: roleXTR}, "hmac": {kind: kindList, role: roleXTR}, "kdf": {kind: kindList, role: roleXTR},
		"etr":             flag().of(roleXTR),
		"resolver-key":    {kind: kindSection, role: roleXTR, sub: with(key, options{"wrap": {}})},
		"itr-key":         {kind: kindSection, role: roleMS, sub: options{"key": {}, "key-id": number(0, maxOctet)}},
		"map-server-key":  {kind: kindSection, role: roleMS, sub: key},
		"protected-paths": {kind: kindList},
	}}
	o["closed-network"] = option{kind: kindSection, once: true, role: roleXTR, sub: options{
		"map-versions": flag(), "locator-status-bits": flag(), "echo-nonce": flag(),
	}}
}

// nodeSecurity reads lisp-sec and closed-network of a node.
func (r *reader) nodeSecurity(g *group, n *Node) {
	for _, s := range g.groups["closed-network"] {
		n.Closed = Closed{
			MapVersions: s.on("map-versions", false), LocatorStatusBits: s.on("locator-status-bits", false), EchoNonce: s.on("echo-nonce", false),
		}
	}
	for _, s := range g.groups["lisp-sec"] {
		n.LISPSEC = LISPSEC{
			Mode: r.oneOf(s, "mode", "off", secModes), HMACs: r.someOf(s, "hmac", hmacNames), KDFs: r.someOf(s, "kdf", kdfNames),
			ProtectedPaths: r.prefixes(s, "protected-paths"), NoETR: !s.on("etr", true),
		}
		for _, k := range s.groups["resolver-key"] {
			if key, ok := r.secKey(k); ok {
				key.Null = r.oneOf(k, "wrap", wrapNames[0], wrapNames) == wrapNames[1]
				n.LISPSEC.Keys = append(n.LISPSEC.Keys, key)
			}
		}
		if n.LISPSEC.Mode != "off" && len(n.LISPSEC.Keys) == 0 && len(r.probs.errors) == 0 {
			s.errorf("mode", "needs the key of a Map-Resolver: add resolver-key { address = ... key = ... }")
		}
		for _, k := range n.LISPSEC.Keys {
			if k.Addr.IsValid() && !slices.Contains(n.MapResolvers, k.Addr) {
				r.probs.warnf(s.line, s.name, "has a resolver-key for %s, which is no map-resolver", k.Addr)
			}
		}
	}
}

func (r *reader) mapServerSecurity(g *group, m *MapServerNode) {
	for _, s := range g.groups["lisp-sec"] {
		m.LISPSEC.ProtectedPaths = r.prefixes(s, "protected-paths")
		for _, k := range s.groups["itr-key"] {
			if key, ok := r.secKey(k); ok {
				m.LISPSEC.ITRKeys = append(m.LISPSEC.ITRKeys, key.Key)
			}
		}
		for _, k := range s.groups["map-server-key"] {
			key, ok := r.secKey(k)
			if ok && !key.Addr.IsValid() {
				r.probs.errorf(k.line, k.name, "has no address")
				continue
			}
			m.LISPSEC.MapServers = append(m.LISPSEC.MapServers, key)
		}
	}
}

func (r *reader) secKey(g *group) (SECKey, bool) {
	secret, ok := g.need("key")
	k := SECKey{Key: Key{ID: uint8(g.num("key-id", 0)), Secret: Secret(secret)}}
	if ok && g.has("address") {
		k.Addr, ok = r.needAddress(g, "address")
	}
	return k, ok
}

// oneOf reads one word of a few.
func (r *reader) oneOf(g *group, name, def string, words []string) string {
	text := g.str(name, def)
	for _, w := range words {
		if strings.EqualFold(w, text) {
			return w
		}
	}
	r.notAWord(g.lineOf(name), join(g.name, name), text, words)
	return def
}

// someOf reads a list of such words.
func (r *reader) someOf(g *group, name string, words []string) (out []string) {
	for _, v := range g.list(name) {
		i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, v.text) })
		if i < 0 {
			r.notAWord(v.line, join(g.name, name), v.text, words)
			continue
		}
		out = append(out, words[i])
	}
	return out
}

func (r *reader) notAWord(line int, option, text string, words []string) {
	hint := ""
	if near := Suggest(text, slices.Clone(words)); near != "" {
		hint = "; did you mean '" + near + "'?"
	}
	r.probs.errorf(line, option, "'%s' is not one of %s%s", text, strings.Join(words, ", "), hint)
}
