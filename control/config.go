package control

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// ErrConfig is wrapped by every error that New and NewRunner return for a
// configuration that cannot work.
var ErrConfig = errors.New("bad configuration")

// Config makes an Engine. The zero value of a field means its default; for
// durations and counts a negative value means none. A Config must not be
// modified after New.
type Config struct {
	// Port is our own control port: the source of everything we send, and what
	// Map-Replies and Map-Notifies come back to. Default 4342.
	Port uint16

	// Database is what this xTR is authoritative for. Its locators come from
	// SetLocals.
	Database []DatabaseMapping
	// MapServers are registered with, each independently.
	MapServers []MapServer
	// MapResolvers are asked for mappings, the first that is healthy first. The
	// addresses must be routable without LISP.
	MapResolvers []netip.AddrPort
	// ProxyETRs take packets to destinations that are no EIDs. Empty: such
	// packets are forwarded natively. ProxyETRs4 and ProxyETRs6, if not empty,
	// take their place for destinations of that address family (RFC 6832 §6).
	ProxyETRs              []mapcache.RLOC
	ProxyETRs4, ProxyETRs6 []mapcache.RLOC
	// ProxyITR are aggregates of EIDs of others for which this is a Proxy-ITR: it
	// takes packets to them from hosts that are no EIDs (RFC 6832 §5). Map-Requests
	// for EIDs inside say so by the p bit. What is outside is asked for only by an
	// xTR, which has a Database.
	ProxyITR []mapcache.Key
	// StaticMappings are put into the map-cache and stay there.
	StaticMappings []mapcache.Mapping

	// XTRID and SiteID identify this xTR in Map-Registers. If either is not
	// zero, Map-Registers carry both and set the I bit (RFC 9301 §5.6).
	XTRID  lisp.XTRID
	SiteID lisp.SiteID
	// RegisterNonce is the last Map-Register nonce of a previous run
	// (Engine.RegisterNonce). The first nonce used is the larger of its
	// successor and a value derived from the clock, so that nonces grow across
	// restarts even when it was lost, as long as the clock does not go back.
	RegisterNonce lisp.Nonce

	// RegisterInterval is the period of registrations, default 60 s.
	RegisterInterval time.Duration
	// QuickInterval is the period after a start or a change, default 20 s, for
	// QuickTime, default 5 min (RFC 9301 §8.2).
	QuickInterval, QuickTime time.Duration
	// PathMTU is the largest IP packet a control message may make, in octets.
	// Default: 576 for IPv4 and 1280 for IPv6 (RFC 9301 §5).
	PathMTU int

	// Format is how packets to locators are encapsulated that the mapping system
	// names: it does not say. Default mapcache.FormatLISP.
	Format mapcache.Format

	// MapRequestRetries is how often an unanswered Map-Request is sent again
	// before its EID is left alone for 30 s, default 10, which is also the most
	// (RFC 9301 §5.3). Negative: it is not.
	MapRequestRetries int
	// MaxPending bounds the EIDs under resolution, default 4096.
	MaxPending int
	// MapRequestRate bounds all Map-Requests sent for resolution, per second,
	// default 1000. Whatever it is, one EID-Prefix is asked for at most once a
	// second.
	MapRequestRate int
	// MapReplyRate bounds all Map-Replies sent, per second, default 1000;
	// MapReplyBurst is how many may go to one RLOC before the rate of one in
	// three seconds applies to it, default 64 (RFC 9301 §5.4). Answers to the probes
	// of peers we know are a hundred a second at most.
	MapReplyRate, MapReplyBurst int
	// MinPrefix4 and MinPrefix6 are the shortest EID-Prefixes that a positive
	// Map-Reply may carry, default 8 and 16; negative: any.
	MinPrefix4, MinPrefix6 int

	// LISPSEC configures LISP-SEC.
	LISPSEC LISPSEC
	// Experimental is off by default.
	Experimental Experimental
	// Probe configures RLOC-probing.
	Probe ProbeConfig
	// SMR says who is told when the locators of our mappings change.
	SMR SMRConfig
	// Closed turns on what is for closed networks only.
	Closed Closed
	// NAT has locators behind a NAT registered by an RTR.
	NAT NATConfig
	// Cache configures the map-cache.
	Cache mapcache.Config

	// Rand is the source of nonces and jitter, default crypto/rand.
	Rand io.Reader
	// Logger gets what happens; nil is silent.
	Logger *slog.Logger
}

// DatabaseMapping is one EID-Prefix that this xTR is authoritative for.
type DatabaseMapping struct {
	mapcache.Key
	// TTL is the lifetime told to others, in whole minutes, default 24 h.
	TTL time.Duration
	// MapVersion is the Map-Version Number of the mapping, 1..4095, with
	// Closed.MapVersions. It grows with every change. 0: the mapping has none, also
	// later (RFC 9302 §6.1). RandomMapVersion draws the first; MapVersions says
	// which one to go on with after a restart.
	MapVersion uint16
	// RLOCs selects and weighs the locators of this EID-Prefix. Empty: all
	// locators of SetLocals, with their own priority and weight.
	RLOCs []DatabaseRLOC
}

// DatabaseRLOC is a locator of a DatabaseMapping.
type DatabaseRLOC struct {
	// Addr is the address of the locator. Invalid: every address of the
	// interface IfIndex, or only those of a Family.
	Addr    netip.Addr
	IfIndex int
	Family  uint8 // 4 or 6; 0 is both
	// Priority is 0..255, the lower wins, 255 is not used; Weight 0..255 is the
	// share among equals.
	Priority, Weight uint8
	// Remote marks a locator of another ETR of the site. It is announced as it
	// is, whatever SetLocals says.
	Remote bool
}

// MapServer is a Map-Server to register with.
type MapServer struct {
	Addr netip.AddrPort // port 0 stands for 4342
	Key  lisp.Key
	// ProxyReply asks the Map-Server to answer Map-Requests for us (P bit).
	ProxyReply bool
	// UseTTL lets the registration live as long as the mapping (T bit), not three
	// minutes. A Map-Server that cannot keep it refuses or cuts the TTL down.
	UseTTL bool
	// Merge asks the Map-Server to join our locators with those that other xTRs
	// of the site register for the same EID-Prefix (a bit).
	Merge bool
}

// ProbeConfig configures RLOC-probing (RFC 9301 §7.1).
type ProbeConfig struct {
	// Interval is the period of probes to one locator, jittered by a tenth,
	// default 30 s. Negative: no probing.
	Interval time.Duration
	// Timeout is how long the first answer is waited for, default 1 s. A path
	// known to be slow is given twice its round-trip time, up to 10 s.
	Timeout time.Duration
	// Tries is how many probes in a row go unanswered before the locator is
	// down, default 2.
	Tries int
	// MaxPaths bounds the (local, remote) locator pairs probed, default 131072.
	MaxPaths int
	// Port is where probes are sent, default 4342.
	Port uint16
	// Exclude are remote locators that are not probed: they count as reachable.
	Exclude []netip.Prefix
	// Fast, at least 10 ms, is the period of probes to locators that carried
	// packets during the last 15 s; they are given that long to answer, or twice
	// their round-trip time. Zero: there is no difference.
	Fast time.Duration
	// PreferRTT prefers, among locators of a mapping and among our own of the
	// same best Priority, the pairs whose round-trip time is clearly shorter; Weight
	// divides the flows among those that are alike. It needs a PairPlane.
	PreferRTT bool
}

// SMRConfig says to whom Solicit-Map-Requests are sent (RFC 9301 §6.1).
type SMRConfig struct {
	// Window is how long ago data must have been exchanged with a peer for it to
	// be told of a change, default one minute. Negative: no peer is told, only
	// ProxyITRs.
	Window time.Duration
	// All tells every locator in the map-cache, used lately or not.
	All bool
	// ProxyITRs are always told: they may have our mappings, though we send them
	// nothing.
	ProxyITRs []netip.Addr
	// MaxPeers bounds the locators that are being told at a time, default 16384.
	MaxPeers int
}

// Timer rules that the protocol fixes.
const (
	requestInterval    = time.Second            // RFC 9301 §5.3: least time between Map-Requests for an EID-Prefix
	requestRetries     = 10                     // RFC 9301 §5.3: retransmissions before the silence
	requestSilence     = 30 * time.Second       // RFC 9301 §5.3
	requestBackoff     = 8 * time.Second        // our cap, so that the ten retransmissions take about a minute
	smrInterval        = 3 * time.Second        // RFC 9301 §6.1: least time between SMR-invoked Map-Requests
	smrSourceInterval  = 100 * time.Millisecond // our limit: SMRs followed for one sender,
	smrSourceBurst     = 64                     // after so many
	registerTimeout    = time.Second            // RFC 9301 §5.7: first wait for a Map-Notify
	registerMaxWait    = time.Minute            // RFC 9301 §5.7: cap of the exponential back-off
	registrationLife   = 3 * time.Minute        // RFC 9301 §8.2: how long a Map-Server keeps what is not registered again
	registerSends      = 3                      // one message is sent at most this often, then a new nonce
	replyInterval      = 3 * time.Second        // RFC 9301 §5.4: per destination RLOC
	probeReplyInterval = 10 * time.Millisecond  // our limit: answers to the probes of a peer we know, per destination RLOC
	maxITRRLOCs        = 32                     // RFC 9301 §5.2
	maxRecords         = 255                    // Record Count has 8 bits
	maxLocators        = 255                    // Locator Count has 8 bits
	maxReplyMessages   = 8                      // Map-Replies to one Map-Request, when overlapping prefixes need several
	defaultTTL         = 24 * time.Hour         // of our own mappings
	probeMaxTimeout    = 10 * time.Second
	maxQueue           = 8192 // datagrams waiting for Next
	maxEvents          = 4096 // events waiting for NextEvent
)

// withDefaults returns a normalised copy of c, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	def(&c.Port, lisp.ControlPort)
	def(&c.RegisterInterval, time.Minute)
	def(&c.QuickInterval, 20*time.Second)
	def(&c.QuickTime, 5*time.Minute)
	def(&c.MapRequestRetries, requestRetries)
	c.MapRequestRetries = min(max(c.MapRequestRetries, 0), requestRetries)
	def(&c.MaxPending, 4096)
	def(&c.MapRequestRate, 1000)
	def(&c.MapReplyRate, 1000)
	def(&c.MapReplyBurst, 64)
	def(&c.MinPrefix4, 8)
	def(&c.MinPrefix6, 16)
	def(&c.Probe.Interval, 30*time.Second)
	def(&c.Probe.Timeout, time.Second)
	def(&c.Probe.Tries, 2)
	def(&c.Probe.MaxPaths, 1<<17)
	def(&c.Probe.Port, lisp.ControlPort)
	def(&c.SMR.Window, time.Minute)
	def(&c.SMR.MaxPeers, 1<<14)
	if c.RegisterInterval < time.Second || c.QuickInterval < time.Second {
		return c, fmt.Errorf("control: registration interval below one second: %w", ErrConfig)
	}
	if c.PathMTU != 0 && c.PathMTU < 576 {
		return c, fmt.Errorf("control: path MTU %d below 576: %w", c.PathMTU, ErrConfig)
	}
	if c.MaxPending < 1 || c.SMR.MaxPeers < 1 || c.MapRequestRate < 1 || c.MapReplyRate < 1 || c.MapReplyBurst < 1 {
		return c, fmt.Errorf("control: limits must be positive: %w", ErrConfig)
	}
	if c.Probe.Fast != 0 && c.Probe.Fast < 10*time.Millisecond {
		return c, fmt.Errorf("control: RLOC-probing every %v: %w", c.Probe.Fast, ErrConfig)
	}
	if c.Probe.Interval > 0 && (c.Probe.Timeout < 10*time.Millisecond || c.Probe.Tries < 1 || c.Probe.Interval <= c.Probe.Timeout) {
		return c, fmt.Errorf("control: RLOC-probing: interval %v, timeout %v, tries %d: %w",
			c.Probe.Interval, c.Probe.Timeout, c.Probe.Tries, ErrConfig)
	}

	var err error
	if c.Database, err = cleanDatabase(c.Database, &c.Closed); err != nil {
		return c, err
	}
	if err := c.Closed.withDefaults(); err != nil {
		return c, err
	}
	if err := c.NAT.check(&c); err != nil {
		return c, err
	}

	servers := make([]MapServer, len(c.MapServers))
	for i, s := range c.MapServers {
		a, err := controlAddr(s.Addr)
		if err != nil {
			return c, fmt.Errorf("control: Map-Server %d: %w", i, err)
		}
		s.Addr = a
		if s.Key.Algorithm == lisp.AlgorithmNone || len(s.Key.Secret) == 0 {
			// RFC 9301 §8.2: there is no registration without a shared key.
			return c, fmt.Errorf("control: Map-Server %v has no key: %w", a, ErrConfig)
		}
		servers[i] = s
	}
	c.MapServers = servers

	resolvers := make([]netip.AddrPort, len(c.MapResolvers))
	for i, r := range c.MapResolvers {
		a, err := controlAddr(r)
		if err != nil {
			return c, fmt.Errorf("control: Map-Resolver %d: %w", i, err)
		}
		resolvers[i] = a
	}
	c.MapResolvers = resolvers
	if c.Experimental.PubSub && c.XTRID == (lisp.XTRID{}) {
		return c, fmt.Errorf("control: subscriptions need an xTR-ID: %w", ErrConfig)
	}
	if c.LISPSEC, err = c.LISPSEC.withDefaults(resolvers); err != nil {
		return c, err
	}

	pitrs := make([]netip.Addr, len(c.SMR.ProxyITRs))
	for i, a := range c.SMR.ProxyITRs {
		if pitrs[i] = a.Unmap(); !usableUnicast(pitrs[i]) {
			return c, fmt.Errorf("control: Proxy-ITR %v is no unicast address: %w", a, ErrConfig)
		}
	}
	c.SMR.ProxyITRs = pitrs

	for _, list := range []*[]mapcache.RLOC{&c.ProxyETRs, &c.ProxyETRs4, &c.ProxyETRs6} {
		petrs := make([]mapcache.RLOC, len(*list))
		for i, r := range *list {
			r.Locator = cleanLocator(r.Locator)
			if !usableUnicast(r.Addr) {
				return c, fmt.Errorf("control: Proxy-ETR %v is no unicast address: %w", r.Addr, ErrConfig)
			}
			petrs[i] = r
		}
		*list = petrs
	}
	aggregates := make([]mapcache.Key, len(c.ProxyITR))
	for i, k := range c.ProxyITR {
		if aggregates[i], err = cleanKey(k); err != nil {
			return c, fmt.Errorf("control: Proxy-ITR: %w", err)
		}
	}
	c.ProxyITR = aggregates
	return c, nil
}

// cleanDatabase returns a normalised copy of db, or what is wrong with it.
func cleanDatabase(in []DatabaseMapping, closed *Closed) ([]DatabaseMapping, error) {
	seen := make(map[mapcache.Key]bool, len(in))
	db := make([]DatabaseMapping, len(in))
	for i, m := range in {
		k, err := cleanKey(m.Key)
		if err != nil {
			return nil, fmt.Errorf("control: database mapping %d: %w", i, err)
		}
		if seen[k] {
			return nil, fmt.Errorf("control: database mapping %v is there twice: %w", k, ErrConfig)
		}
		seen[k] = true
		m.Key = k
		def(&m.TTL, defaultTTL)
		if m.TTL < time.Minute {
			return nil, fmt.Errorf("control: database mapping %v: TTL %v below a minute: %w", k, m.TTL, ErrConfig)
		}
		if err := closed.check(&m); err != nil {
			return nil, err
		}
		rlocs := make([]DatabaseRLOC, len(m.RLOCs))
		for j, r := range m.RLOCs {
			r.Addr = r.Addr.Unmap()
			if !r.Addr.IsValid() && (r.IfIndex == 0 || r.Remote) {
				return nil, fmt.Errorf("control: database mapping %v: locator %d has no address: %w", k, j, ErrConfig)
			}
			if r.Family != 0 && r.Family != 4 && r.Family != 6 {
				return nil, fmt.Errorf("control: database mapping %v: locator %d: address family %d: %w", k, j, r.Family, ErrConfig)
			}
			rlocs[j] = r
		}
		m.RLOCs = rlocs
		db[i] = m
	}
	return db, nil
}

// def puts d where *v is zero.
func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// cleanKey masks and unmaps k.
func cleanKey(k mapcache.Key) (mapcache.Key, error) {
	c := mapcache.MakeKey(k.IID, k.Prefix)
	if !c.Prefix.IsValid() {
		return k, fmt.Errorf("EID-Prefix %v: %w", k.Prefix, ErrConfig)
	}
	if k.IID > 0xffffff {
		return k, fmt.Errorf("instance ID %d of %v exceeds 24 bits: %w", k.IID, c.Prefix, ErrConfig)
	}
	return c, nil
}

// cleanLocator gives l the form that package mapcache compares.
func cleanLocator(l mapcache.Locator) mapcache.Locator {
	l.Addr = l.Addr.Unmap()
	def(&l.Port, l.Format.Port())
	return l
}

// learned is the locator of an address that a message names.
func (e *Engine) learned(a netip.Addr) mapcache.Locator {
	return cleanLocator(mapcache.Locator{Addr: a, Format: e.cfg.Format})
}

// controlAddr checks the address of a Map-Server or Map-Resolver.
func controlAddr(a netip.AddrPort) (netip.AddrPort, error) {
	addr := a.Addr().Unmap()
	if !usableUnicast(addr) {
		return a, fmt.Errorf("%v is no unicast address: %w", a, ErrConfig)
	}
	port := a.Port()
	def(&port, lisp.ControlPort)
	return netip.AddrPortFrom(addr, port), nil
}

// usableUnicast reports whether a can be a locator at all (RFC 9301 §5.4:
// neither broadcast nor multicast).
func usableUnicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
