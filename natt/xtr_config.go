package natt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// ErrConfig is wrapped by the errors of constructors about a configuration that
// cannot work.
var ErrConfig = errors.New("bad configuration")

// Registrar has the keys of an XTR and knows what it is to register.
// control.Engine is one. It must not call the XTR from within these methods.
type Registrar interface {
	// Site returns an EID-Prefix of ours that server knows us by, for an
	// Info-Request. Without one nothing can be asked.
	Site(server netip.AddrPort) (iid uint32, eid netip.Prefix, ok bool)
	// SignInfo appends m to b, signed with the key shared with server.
	SignInfo(b []byte, server netip.AddrPort, m *lisp.InfoRequest) ([]byte, error)
	// VerifyInfo checks the authentication data of an Info-Reply of server, over
	// the octets received.
	VerifyInfo(server netip.AddrPort, b []byte) error
	// MapRegisters returns the signed Map-Registers that announce our EID-Prefixes
	// by r, each with a nonce of its own, always in the same order. They have P, M
	// and I set, the xTR-ID, and with Variant Old the R bit.
	MapRegisters(now time.Time, r Route) []Register
	// Notify takes a Map-Notify that came by r: the answer to a Map-Register, or
	// unsolicited news. It verifies it with the key shared with server before it
	// uses anything of it; its error is that of the verification.
	Notify(now time.Time, r Route, server netip.AddrPort, b []byte, solicited bool) error
}

// Route is the way by which an XTR registers one of our locators.
type Route struct {
	Variant Variant
	Local   netip.Addr
	// RTR is the one that the Map-Register goes by and that traffic is to come by.
	RTR netip.Addr
	// RTRs are all that may be announced: RTR, but with LispersNet all there are.
	RTRs []netip.Addr
	// Global is the address and port that the Map-Server saw.
	Global netip.AddrPort
	// Name is that of the node, with LispersNet.
	Name string
	// Withdraw asks for Map-Registers with TTL 0.
	Withdraw bool
}

// Register is one signed Map-Register.
type Register struct {
	Server  netip.AddrPort // the Map-Server
	Nonce   lisp.Nonce
	Message []byte // the XTR doesn't keep it
}

// XTRConfig makes an XTR. The zero value of a field means its default.
type XTRConfig struct {
	Variant Variant
	// Local is the own locator that it is about, on interface IfIndex. Mandatory.
	Local   netip.Addr
	IfIndex int
	// Port is our own control port, default 4342: Info-Requests leave from it.
	Port uint16
	// Servers are the Map-Servers. Those of the other address family are not asked.
	Servers []netip.AddrPort
	// Registrar registers and signs. Mandatory.
	Registrar Registrar
	// XTRID is our own. A Data-Map-Notify for another is refused. Mandatory: an RTR
	// tells its xTRs apart by it.
	XTRID lisp.XTRID
	// HostName is what LispersNet goes by, default "xtr-" and a part of XTRID.
	HostName string

	// KeepAlive is how often the binding of the NAT is kept open, default 25 s (with
	// LispersNet 15 s), for NATs are known that forget after 30 s. It gets shorter by itself, down to
	// MinKeepAlive, default 5 s, where the mapped port changes between two
	// Info-Replies again and again.
	KeepAlive, MinKeepAlive time.Duration
	// Always goes by an RTR even where no NAT is found, so that moving between
	// networks changes nothing that others see.
	Always bool
	// Mute says that the Map-Servers are known to answer no Info-Requests. A locator
	// that is likely public doesn't wait for them then, with Always neither.
	Mute bool

	// Rand is the source of nonces and jitter, default crypto/rand.
	Rand io.Reader
	// Logger gets what happens; nil is silent.
	Logger *slog.Logger
}

// Timer rules.
const (
	infoFirstWait = 500 * time.Millisecond // after an Info-Request that is not answered, each time twice as long,
	infoMostWait  = 3 * time.Second        // until that;
	infoSends     = 6                      // there are so many in a row,
	infoSleep     = 60 * time.Second       // and then none for so long
	registerSends = 4                      // unanswered Map-Registers until an RTR counts as silent
	registerWait  = 3 * time.Second        // at most, between them
	rtrRest       = 2 * time.Minute        // how long a silent RTR is not preferred
	minRedetect   = time.Minute            // bounds of the time to the next Info-Request
	maxRedetect   = time.Hour              // of a locator that is public; the Info-Reply's TTL in between
	maxListed     = 8                      // of an Info-Reply
	heardLife     = 3 * time.Minute        // how long an acknowledged Map-Register shows that the Map-Server is there
	maxRace       = 4                      // RTRs that are tried at the same time
	nonceLife     = 30 * time.Second       // how long an answer is waited for
	maxNonces     = 256                    // of each kind
	maxHostName   = 64                     // octets
	maxQueue      = 1024                   // datagrams waiting for Next
	maxEvents     = 256                    // events waiting for NextEvent

	maxListMinutes = 24 * 60 // how long the RTRs of an Info-Reply are kept at most
)

func (c XTRConfig) withDefaults() (XTRConfig, error) {
	def(&c.Port, lisp.ControlPort)
	if c.Variant == LispersNet {
		def(&c.KeepAlive, punchInterval)
	}
	def(&c.KeepAlive, 25*time.Second)
	def(&c.MinKeepAlive, 5*time.Second)
	def(&c.HostName, fmt.Sprintf("xtr-%x", c.XTRID[:4]))
	c.Local = c.Local.Unmap().WithZone("")
	switch {
	case c.Variant >= numVariants:
		return c, fmt.Errorf("%w: %w", ErrVariant, ErrConfig)
	case !c.Local.IsValid() || c.Local.IsUnspecified() || c.Local.IsMulticast():
		return c, fmt.Errorf("natt: own locator %v: %w", c.Local, ErrConfig)
	case c.Registrar == nil:
		return c, fmt.Errorf("natt: an XTR needs a Registrar: %w", ErrConfig)
	case c.XTRID == lisp.XTRID{}:
		return c, fmt.Errorf("natt: an XTR needs an xTR-ID: %w", ErrConfig)
	case len(c.HostName) > maxHostName || strings.ContainsRune(c.HostName, 0):
		return c, fmt.Errorf("natt: host name %q: %w", c.HostName, ErrConfig)
	case c.MinKeepAlive < time.Second || c.KeepAlive < c.MinKeepAlive:
		return c, fmt.Errorf("natt: keep-alive %v, at least %v: %w", c.KeepAlive, c.MinKeepAlive, ErrConfig)
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var servers []netip.AddrPort
	for _, s := range c.Servers {
		a, port := s.Addr().Unmap(), s.Port()
		def(&port, lisp.ControlPort)
		if a.Is4() == c.Local.Is4() {
			servers = append(servers, netip.AddrPortFrom(a, port))
		}
	}
	c.Servers = servers
	return c, nil
}

// def puts d where *v is zero.
func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
