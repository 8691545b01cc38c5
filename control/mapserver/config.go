package mapserver

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// Defaults of a zero Config.
const (
	DefaultRegisterTimeout  = 3 * time.Minute // RFC 9301 §8.2
	DefaultMaxRegistrations = 1 << 20
	DefaultRatePerSource    = 1_000   // datagrams a second
	DefaultRateTotal        = 100_000 // datagrams a second
	DefaultEventBuffer      = 1024
	DefaultMaxNotifies      = 1 << 14
	DefaultHistory          = 256
)

// ErrConfig is wrapped by every error about a Config.
var ErrConfig = errors.New("mapserver: bad configuration")

// Config configures a Server. The zero value of a field is its default, a
// negative number turns the thing off. It must not be modified after New.
type Config struct {
	// Sites may register their EID-Prefixes here. An EID-Prefix and instance ID
	// belongs to one site; prefixes of different sites may overlap, the more
	// specific one wins.
	Sites []Site

	// Resolver is the table of a Map-Resolver: EID-Prefixes that other Map-Servers
	// have. It may overlap with Sites, the longest prefix wins. EIDs outside of
	// both don't exist: they are answered negatively.
	Resolver []ResolverEntry

	// HealthInterval is the time between health checks of the Map-Servers of
	// Resolver, where there is a choice: an encapsulated Map-Request for an EID of
	// nobody, which a Map-Server answers itself. It needs an address of the
	// Map-Server's family in Locals. Negative: none are made, the Map-Servers of
	// an entry are used in order and are never down.
	HealthInterval time.Duration

	// RegisterTimeout is how long a registration lives without a valid
	// Map-Register, unless the ETR asks for its Record TTL by the T bit.
	RegisterTimeout time.Duration

	// LISPSEC configures LISP-SEC.
	LISPSEC LISPSEC

	// NAT configures NAT traversal.
	NAT NAT

	// Experimental is off by default.
	Experimental Experimental

	// Locals are the server's own addresses. When given, a Map-Request is
	// forwarded, and a Map-Reply sent, only to addresses of a family that occurs
	// in it, and a Map-Request whose ETR is one of them is left to the ETR in
	// the same process. Without it every family is taken to work.
	Locals []netip.Addr

	// MaxRegistrations bounds the state: the number of pairs of EID-Prefix and
	// xTR, and as many remembered xTRs.
	MaxRegistrations int

	// MaxNotifies bounds the unsolicited Map-Notifies (RFC 9301 §5.7): how many
	// pairs of an EID-Prefix whose mapping moved, and an xTR that has to hear of
	// it, are kept until they are acknowledged or given up. Negative: none are sent.
	MaxNotifies int

	// RatePerSource and RateTotal bound the datagrams a second that
	// unauthenticated Map-Requests can make the server send: per source and per
	// answered address (an IPv6 /64 counts as one), and in all. Bursts of one
	// second's worth pass, a long datagram counts as several. A Map-Notify for a
	// repeated Map-Register counts too. Addresses that a valid Map-Register came
	// from lately have a RateTotal of their own, so that a flood from made-up
	// sources leaves them served.
	RatePerSource, RateTotal float64

	// EventBuffer is how many events wait for NextEvent; more are lost and
	// counted. Negative: no events are made.
	EventBuffer int

	// History is how many events of registration, and as many refusals, are kept
	// for Server.History. Negative, or with a negative EventBuffer: none are.
	History int

	// Journal is how many changes wait for Changes. Zero or negative: none are kept.
	Journal int

	// ID tells this server's Deltas from those of others; 0 draws one from Rand.
	ID uint64

	Rand   io.Reader    // nil: crypto/rand
	Logger *slog.Logger // nil: silent
}

// Site is a group of ETRs that may register certain EID-Prefixes with certain keys.
type Site struct {
	Name     string // shown in events; unique
	Prefixes []SitePrefix

	// Keys accepted from the site. Several Key IDs allow keys to be rotated
	// without interruption (RFC 9301 §5.6). lisp.AlgorithmNone is not accepted.
	Keys []lisp.Key

	// OTKWrap is how One-Time Keys of LISP-SEC are wrapped for the site's ETRs,
	// default lisp.WrapAES with the key that the ETR registers with. Protected
	// Map-Requests are forwarded with lisp.WrapNull only on LISPSEC.ProtectedPaths.
	OTKWrap lisp.WrapID

	// ProxyReply answers Map-Requests for the site even if no ETR asked for it.
	ProxyReply bool

	Replay ReplayMode
	Deny   Deny

	// RTRs of Config.NAT that the site's nodes are told, in order; nil: all of them.
	RTRs []netip.Addr
}

// SitePrefix is an EID-Prefix that a site may register.
type SitePrefix struct {
	IID                 uint32 // instance ID, 0..0xffffff
	Prefix              netip.Prefix
	AcceptMoreSpecifics bool // also any longer prefix within it
}

// ReplayMode says how strictly the nonces of Map-Registers must increase
// (RFC 9301 §5.6). Whatever the mode, a repetition of one of the last 32
// accepted Map-Registers changes nothing.
type ReplayMode uint8

// Replay modes.
const (
	// ReplayAuto enforces increasing nonces for Algorithm 3, and for an xTR-ID
	// that has shown ten nonces in a row each a little more than the last, since
	// some may go to other Map-Servers. The second
	// kind is let off after it has been silent for RegisterTimeout: it may
	// have restarted and lost its nonce. Running peers of the older RFCs send
	// unordered nonces, which is why this is the default.
	ReplayAuto ReplayMode = iota
	ReplayStrict
	ReplayOff
)

func (m ReplayMode) String() string {
	switch m {
	case ReplayAuto:
		return "auto"
	case ReplayStrict:
		return "strict"
	case ReplayOff:
		return "off"
	}
	return fmt.Sprintf("replay mode %d", uint8(m))
}

// Deny makes the server refuse to resolve a site's EID-Prefixes (RFC 9301 §8.3).
type Deny uint8

// Values of Deny.
const (
	DenyNone      Deny = iota
	DenyPolicy         // negative reply: Drop/Policy-Denied, 15 minutes
	DenyTemporary      // negative reply: Send-Map-Request, 1 minute
)

// negative is the answer for an EID-Prefix that is not registered, or denied.
func (d Deny) negative() (action lisp.Action, ttl uint32) {
	switch d {
	case DenyPolicy:
		return lisp.ActionDropPolicyDenied, ttlNotLISP
	case DenyTemporary:
		return lisp.ActionSendMapRequest, ttlUnregistered
	case DenyNone:
	}
	return lisp.ActionNativelyForward, ttlUnregistered
}

// site is a compiled Site. It stays the same when the Site changes.
type site struct {
	name    string
	current atomic.Pointer[siteTerms]

	idle int // the writer's own: how many of its xTRs are idle
}

// siteTerms is what can change of a Site. It is immutable.
type siteTerms struct {
	keys   []lisp.Key
	wrap   lisp.WrapID
	proxy  bool
	replay ReplayMode
	deny   Deny
	info   natt.SiteInfo
}

func (st *site) terms() *siteTerms { return st.current.Load() }

// sitePrefix is a configured prefix as the trie holds it. It must not have a
// Clone method: bart would copy it on every change.
type sitePrefix struct {
	site    *site
	more    bool
	servers []*upstream // instead of both, of a ResolverEntry
}

// New makes a Server. The error wraps ErrConfig and says which site is wrong.
func New(cfg Config) (*Server, error) {
	cfg.Experimental.MaxSubscriptions = cmp.Or(cfg.Experimental.MaxSubscriptions, DefaultMaxSubscriptions)
	if cfg.HealthInterval == 0 {
		cfg.HealthInterval = DefaultHealthInterval
	}
	if cfg.RegisterTimeout == 0 {
		cfg.RegisterTimeout = DefaultRegisterTimeout
	}
	if cfg.RegisterTimeout < 0 {
		return nil, fmt.Errorf("%w: negative RegisterTimeout", ErrConfig)
	}
	if cfg.MaxRegistrations == 0 {
		cfg.MaxRegistrations = DefaultMaxRegistrations
	}
	if cfg.RatePerSource == 0 {
		cfg.RatePerSource = DefaultRatePerSource
	}
	if cfg.RateTotal == 0 {
		cfg.RateTotal = DefaultRateTotal
	}
	if cfg.MaxNotifies == 0 {
		cfg.MaxNotifies = DefaultMaxNotifies
	}
	if cfg.History == 0 {
		cfg.History = DefaultHistory
	}
	if cfg.EventBuffer == 0 {
		cfg.EventBuffer = DefaultEventBuffer
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var seeds [16]byte
	if _, err := io.ReadFull(cfg.Rand, seeds[:]); err != nil {
		return nil, fmt.Errorf("mapserver: random seed: %w", err)
	}
	if cfg.ID == 0 {
		cfg.ID = binary.BigEndian.Uint64(seeds[8:])
	}
	s := &Server{
		cfg:      cfg,
		log:      cfg.Logger.With("component", "mapserver"),
		healthAt: math.MaxInt64,
		xtrs:     newXTRs(),
		limits:   newLimits(cfg.RatePerSource, cfg.RateTotal, binary.BigEndian.Uint64(seeds[:8])),
	}
	for _, a := range cfg.Locals {
		switch a = a.Unmap(); {
		case a.Is4():
			s.haveIPv4 = true
		case a.Is6():
			s.haveIPv6 = true
		}
		s.locals = append(s.locals, a)
	}
	if len(s.locals) == 0 {
		s.haveIPv4, s.haveIPv6 = true, true
	}
	s.settings.Store(new(settings))
	s.worker = s.NewWorker()
	d, err := s.compile(&cfg)
	if err != nil {
		return nil, err
	}
	s.putInForce(d)
	return s, nil
}
