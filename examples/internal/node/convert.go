package node

import (
	"cmp"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// controlConfig says in the terms of package control what the file says.
func controlConfig(cfg *conf.Node, db []control.DatabaseMapping, id identity, log *slog.Logger) control.Config {
	c := control.Config{
		Logger: log, Probe: probing(cfg.Probing), Database: db, XTRID: id.XTRID, RegisterNonce: id.Nonce,
		Port: cfg.ControlPort, Format: format(cfg), MapRequestRetries: cfg.MapRequestRetries, LISPSEC: lispSec(&cfg.LISPSEC),
		NAT: natConfig(cfg),
	}
	c.Closed.MapVersions, c.Closed.LocatorStatusBits, c.Closed.EchoNonce = cfg.Closed.MapVersions, cfg.Closed.LocatorStatusBits, cfg.Closed.EchoNonce
	for _, s := range cfg.MapServers {
		c.MapServers = append(c.MapServers, control.MapServer{
			Addr: netip.AddrPortFrom(s.Addr, lisp.ControlPort), Key: Key(s.Key), ProxyReply: s.ProxyReply, Merge: s.Merge,
		})
	}
	for _, a := range cfg.MapResolvers {
		c.MapResolvers = append(c.MapResolvers, netip.AddrPortFrom(a, lisp.ControlPort))
	}
	f := format(cfg)
	c.ProxyETRs, c.ProxyETRs4, c.ProxyETRs6 = rlocs(cfg.ProxyETRs, f), rlocs(cfg.ProxyETRs4, f), rlocs(cfg.ProxyETRs6, f)
	for _, p := range cfg.Proxy.ITR {
		c.ProxyITR = append(c.ProxyITR, mapcache.Key{IID: cfg.IID, Prefix: p})
	}
	c.SMR.ProxyITRs = cfg.ProxyITRs
	for _, m := range cfg.Static {
		c.StaticMappings = append(c.StaticMappings, mapcache.Mapping{
			Key: mapcache.Key{IID: m.IID, Prefix: m.Prefix}, RLOCs: rlocs(m.RLOCs, f),
			TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
		})
	}
	c.StaticMappings = append(c.StaticMappings, notAllowed(cfg)...)
	return c
}

// format is how packets to locators are encapsulated.
func format(cfg *conf.Node) mapcache.Format {
	switch cfg.Encapsulation {
	case "LISP-GPE":
		return mapcache.FormatGPE
	case "VXLAN-GPE":
		return mapcache.FormatVXLANGPE
	default:
		return mapcache.FormatLISP
	}
}

// database says what the node is authoritative for on a host with these
// interfaces. versions are the Map-Version Numbers of an earlier run.
func database(cfg *conf.Node, ifs []multihome.Interface, versions map[string]uint16) []control.DatabaseMapping {
	same := len(cfg.Locators) == 0 && cfg.UplinkMode != conf.UplinkLegacy
	for _, m := range cfg.Mappings {
		same = same && sameSources(m, cfg.Mappings[0]) && !slices.ContainsFunc(m.Locators, func(s conf.LocatorSource) bool { return s.Remote })
	}
	db := make([]control.DatabaseMapping, 0, len(cfg.Mappings))
	for _, m := range cfg.Mappings {
		d := control.DatabaseMapping{Key: mapcache.Key{IID: m.IID, Prefix: m.Prefix}, TTL: m.TTL}
		if cfg.Closed.MapVersions {
			d.MapVersion = cmp.Or(versions[d.String()], control.RandomMapVersion)
		}
		if !same {
			d.RLOCs = databaseRLOCs(m, ifs)
		}
		db = append(db, d)
	}
	return db
}

// sameSources reports whether two EID-Prefixes are behind the same locators.
func sameSources(a, b conf.DatabaseMapping) bool {
	strip := func(m conf.DatabaseMapping) (ss []conf.LocatorSource) {
		for _, s := range m.Locators {
			s.Line = 0
			ss = append(ss, s)
		}
		return ss
	}
	return reflect.DeepEqual(strip(a), strip(b))
}

// Key turns the key of a file into one that signs and verifies.
func Key(k conf.Key) lisp.Key {
	return lisp.Key{ID: k.ID, Algorithm: lisp.Algorithm(k.Type), Secret: []byte(k.Secret)}
}

func rlocs(rs []conf.RLOC, f mapcache.Format) []mapcache.RLOC {
	out := make([]mapcache.RLOC, 0, len(rs))
	for _, r := range rs {
		out = append(out, mapcache.RLOC{Locator: mapcache.Locator{Addr: r.Addr, Format: f}, Priority: r.Priority, Weight: r.Weight})
	}
	return out
}

func probing(p conf.Probing) control.ProbeConfig {
	switch {
	case p.Off:
		return control.ProbeConfig{Interval: -1}
	case p.Interval == 0:
		return control.ProbeConfig{}
	}
	// The wait for an answer must end before the next probe is due.
	return control.ProbeConfig{
		Interval: p.Interval, Tries: p.Retries + 1, Timeout: min(p.RetryInterval, p.Interval/2), Fast: p.Fast, PreferRTT: p.PreferRTT,
	}
}
