package conf

import "maps"

// kind is the type of an option.
type kind uint8

const (
	kindString kind = iota
	kindInt
	kindBool
	kindList
	kindSection
)

func (k kind) String() string {
	return [...]string{"a string", "a number", "on or off", "a list", "a section"}[k]
}

// support says what happens to a file that has the option.
type support uint8

const (
	supported support = iota
	ignored           // a warning: the node does its work without it
	refused           // an error: without it the node would do something else than asked
)

// role is a program, or the part of one, that reads an option.
type role uint8

const (
	roleXTR role = 1 << iota // lispmn
	roleMS                   // lispms
	roleRTR
	roleDDT // no program yet
)

// option is what is known about one name.
type option struct {
	kind     kind
	min, max int64 // of a number, inclusive
	bare     bool  // of a section: early formats give the address alone
	once     bool  // of a section: it makes no sense twice
	role     role  // who reads it; 0: everybody
	support  support
	harmless string // a value that asks for nothing, so that nothing is said
	why      string // the reason for ignored and refused
	sub      options
}

// options is a table of names, lower case.
type options map[string]option

// Ranges used more than once.
const (
	maxOctet = 255
	maxIID   = 1<<24 - 2 // 0xffffff marks control messages on the data port
	maxTTL   = 1<<31 - 1 // minutes
	maxDelay = 86400     // seconds
)

func number(lo, hi int64) option { return option{kind: kindInt, min: lo, max: hi} }

func flag() option { return option{kind: kindBool} }

// not marks an option as known but not supported.
func not(s support, k kind, why string) option {
	return option{kind: k, support: s, why: why, min: -1 << 62, max: 1 << 62}
}

// notUnless is not for an option with a value that asks for nothing.
func notUnless(s support, k kind, harmless, why string) option {
	o := not(s, k, why)
	o.harmless = harmless
	return o
}

// of restricts an option to roles.
func (o option) of(r role) option {
	o.role = r
	return o
}

// locatorOptions is the section rloc-address, also the body of proxy-etr.
func locatorOptions() options {
	return options{
		"address":  {},
		"priority": number(0, maxOctet),
		"weight":   number(0, maxOctet),
	}
}

// Reasons used more than once.
const (
	whyNAT  = "whether there is a NAT is found out by asking the Map-Server; see nat-traversal"
	whyDDT  = "DDT is not supported yet; use map-resolver"
	whyLCAF = "explicit locator paths, replication lists and multicast information are not supported; give addresses"
	whyDNS  = "the resolver configuration of the system is left alone"
)

// known holds every option of lispd.conf (all versions), oor.conf and our own,
// by name. It is never modified.
var known = knownOptions()

// extensions add to the table what belongs together and is read in a file of its
// own: new sections, or other entries in place of those below.
var extensions = []func(options){modeOptions, securityOptions, lispdroidOptions, uplinkOptions, policyOptions, natOptions}

// knownOptions makes the table. To support another option, change its entry
// here, or add an extension, and read it in node.go or mapserver.go.
func knownOptions() options {
	all := commonOptions()
	for _, add := range extensions {
		add(all)
	}
	return all
}

func commonOptions() options {
	loc := locatorOptions()
	database := options{
		"eid-prefix": {}, "iid": number(-1, maxIID), "ttl": number(0, maxTTL),
		// LISPmob: one section per interface.
		"interface":   {},
		"priority_v4": number(-1, maxOctet), "weight_v4": number(0, maxOctet),
		"priority_v6": number(-1, maxOctet), "weight_v6": number(0, maxOctet),
		"priority": number(-1, maxOctet), "weight": number(0, maxOctet),
		// OpenOverlayRouter: any number of these in one section.
		"rloc-address": {kind: kindSection, sub: with(loc, options{"local": flag()})},
		"rloc-iface": {kind: kindSection, sub: options{
			"interface": {}, "ip_version": number(4, 6),
			"priority": number(0, maxOctet), "weight": number(0, maxOctet),
		}},
		// lispdroid.
		"local": flag(),
		"rloc":  {},
	}
	server := options{
		"address": {}, "key-type": number(0, 3), "key": {}, "key-id": number(0, maxOctet), "proxy-reply": flag(),
		"merge":  flag(), // join our locators with those of other xTRs of the site
		"verify": notUnless(ignored, kindBool, "on", "what a Map-Server says is always verified"),
	}
	site := options{
		"eid-prefix": {}, "iid": number(-1, maxIID), "key-type": number(0, 3), "key": {}, "key-id": number(0, maxOctet),
		"accept-more-specifics": flag(), "proxy-reply": flag(), "name": {},
		"merge":                 flag(), // nothing to be read: it is for the xTRs to ask for
		"ddt-ms-peers-complete": not(ignored, kindBool, whyDDT),
		"ddt-ms-peers":          not(ignored, kindList, whyDDT),
	}
	static := options{
		"eid-prefix": {}, "iid": number(-1, maxIID),
		"rloc": {}, "priority": number(0, maxOctet), "weight": number(0, maxOctet),
		"local": notUnless(ignored, kindBool, "off", "a static entry is always remote"),
		"rloc-address": {kind: kindSection, sub: with(loc, options{
			"local": notUnless(ignored, kindBool, "off", "a static entry is always remote"),
		})},
	}
	probing := options{
		"rloc-probe-interval":         number(0, maxDelay),
		"rloc-probe-retries":          number(0, 1000),
		"rloc-probe-retries-interval": number(0, maxDelay),
		"rloc-probe-fast-interval":    number(0, 60000), // milliseconds
	}
	xtr := roleXTR
	return options{
		// Everybody.
		"debug":          {}, // a number, or a bool in early formats
		"operating-mode": {},
		"log-file":       {},
		"ipv6-scope":     {},
		"control-socket": {},

		// The xTR.
		"encapsulation":       {role: xtr},
		"rloc-probing":        {kind: kindSection, once: true, role: xtr, sub: probing},
		"map-resolver":        {kind: kindList, role: xtr},
		"proxy-itrs":          {kind: kindList, role: xtr},
		"map-server":          {kind: kindSection, role: xtr, sub: server},
		"database-mapping":    {kind: kindSection, role: xtr, sub: database},
		"static-map-cache":    {kind: kindSection, role: xtr, sub: static},
		"proxy-etr":           {kind: kindSection, bare: true, role: xtr, sub: loc},
		"proxy-etr-ipv4":      {kind: kindSection, role: xtr, sub: loc},
		"proxy-etr-ipv6":      {kind: kindSection, role: xtr, sub: loc},
		"state-file":          {role: xtr | roleMS},
		"control-port":        number(0, 65535).of(xtr),
		"map-request-retries": number(0, 1000).of(xtr),
		"rloc-family":         number(4, 6).of(xtr),
		"tun-name":            {role: xtr},
		"tun-mtu":             number(576, 65535).of(xtr),
		"tun-table":           number(1, 1<<32-1).of(xtr),

		"ddt-client":             notUnless(refused, kindBool, "off", whyDDT).of(xtr),
		"ddt-root-node":          {kind: kindSection, role: xtr, support: ignored, why: whyDDT, sub: loc},
		"rloc-probing-interval":  notUnless(ignored, kindInt, "0", "LISPmob never read it: use rloc-probing { rloc-probe-interval = ... }").of(xtr),
		"override-dns":           notUnless(ignored, kindBool, "off", whyDNS).of(xtr),
		"override-dns-primary":   not(ignored, kindString, whyDNS).of(xtr),
		"override-dns-secondary": not(ignored, kindString, whyDNS).of(xtr),
		"explicit-locator-path": {kind: kindSection, support: refused, why: whyLCAF, role: xtr, sub: options{
			"elp-name": {},
			"elp-node": {kind: kindSection, sub: options{"address": {}, "strict": flag(), "probe": flag(), "lookup": flag()}},
		}},
		"replication-list": {kind: kindSection, support: refused, why: whyLCAF, role: xtr, sub: options{
			"rle-name": {},
			"rle-node": {kind: kindSection, sub: options{"address": {}, "level": {}}},
		}},
		"multicast-info": {kind: kindSection, support: refused, why: whyLCAF, role: xtr, sub: options{
			"mc-info-name": {}, "source": {}, "source-mask-length": {}, "group": {}, "group-mask-length": {}, "iid": {},
		}},

		// The Map-Server.
		"control-iface": {role: roleMS | roleDDT},
		"lisp-site":     {kind: kindSection, role: roleMS, sub: site},
		"resolver-entry": {kind: kindSection, role: roleMS, sub: options{
			"eid-prefix": {}, "iid": number(-1, maxIID), "map-server": {kind: kindList},
		}},
		"ms-static-registered-site": {kind: kindSection, support: refused, role: roleMS, why: "registrations come from Map-Registers only", sub: options{
			"eid-prefix": {}, "iid": {}, "ttl": {}, "rloc-address": {kind: kindSection, sub: loc},
		}},

		// DDT: known, so that a file shared between modes is not full of typos.
		"ddt-auth-site": {kind: kindSection, support: ignored, role: roleDDT, why: whyDDT, sub: options{"eid-prefix": {}, "iid": {}}},
		"ddt-deleg-site": {kind: kindSection, support: ignored, role: roleDDT, why: whyDDT, sub: options{
			"eid-prefix": {}, "iid": {}, "delegation-type": {}, "deleg-nodes": {kind: kindList},
		}},
		"ddt-root-addresses": not(ignored, kindList, whyDDT).of(roleDDT),
	}
}

// with returns a table that holds both.
func with(a, b options) options {
	r := options{}
	maps.Copy(r, a)
	maps.Copy(r, b)
	return r
}
