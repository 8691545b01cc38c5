package control

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/xtrkit/xtrkit/lisp"
)

// LISPSECMode says whether an xTR protects what it asks for by LISP-SEC.
type LISPSECMode uint8

// Modes of LISP-SEC at an ITR.
const (
	// LISPSECOff sends plain Map-Requests.
	LISPSECOff LISPSECMode = iota
	// LISPSECPreferred protects Map-Requests to the Map-Resolvers that there is
	// a key for. A protected one is answered by a protected Map-Reply or by
	// nothing. It is followed by a plain one only if the Map-Server says, under
	// its HMAC, that no ETR of the EID-Prefix does LISP-SEC (E bit).
	LISPSECPreferred
	// LISPSECRequired sends no plain Map-Request and takes no plain Map-Reply.
	LISPSECRequired
)

func (m LISPSECMode) String() string {
	switch m {
	case LISPSECOff:
		return "off"
	case LISPSECPreferred:
		return "preferred"
	case LISPSECRequired:
		return "required"
	default:
		return fmt.Sprintf("LISPSECMode(%d)", uint8(m))
	}
}

// LISPSEC configures LISP-SEC (RFC 9303): protection of what an ITR is told, from
// the Map-Server and ETR that answer it.
//
// As an ETR an Engine needs no more than the keys of its Map-Servers: it
// registers with the S bit and answers protected Map-Requests.
type LISPSEC struct {
	Mode LISPSECMode
	// Resolvers are the keys shared with Map-Resolvers.
	Resolvers []ResolverKey
	// HMACs are requested in this order: the next one when an answer comes with
	// another than the one requested. No answer with one that is not listed is
	// taken; lisp.HMACNoPreference stands for all. Default: HMAC-SHA-256-128, then
	// HMAC-SHA-1-96.
	HMACs []lisp.HMACID
	// KDFs likewise. Default: HKDF-SHA256, then HKDF-SHA1-128.
	KDFs []lisp.KDFID
	// ProtectedPaths are the addresses of Map-Resolvers and Map-Servers that the
	// way to is kept confidential and integral by other means, such as IPsec or
	// DTLS. Only with them One-Time Keys are exchanged unencrypted
	// (NULL-KEY-WRAP-128).
	ProtectedPaths []netip.Prefix
	// NoETR registers without the S bit and drops protected Map-Requests.
	NoETR bool
}

// ResolverKey is the key shared with a Map-Resolver. It must not be that of a
// Map-Server (RFC 9303 §6.5).
type ResolverKey struct {
	// Addr is one of Config.MapResolvers, port 0 standing for 4342; the zero
	// value stands for all that have no key of their own.
	Addr netip.AddrPort
	// Key has the ID and the secret. The other fields are not used.
	Key lisp.Key
	// Wrap is how One-Time Keys are wrapped, default lisp.WrapAES. lisp.WrapNull
	// is only used on ProtectedPaths: else Map-Requests are dropped.
	Wrap lisp.WrapID
}

// withDefaults returns a normalised copy of c, or what is wrong with it.
func (c LISPSEC) withDefaults(resolvers []netip.AddrPort) (LISPSEC, error) {
	if c.Mode > LISPSECRequired {
		return c, fmt.Errorf("control: LISP-SEC %v: %w", c.Mode, ErrConfig)
	}
	if len(c.HMACs) == 0 {
		c.HMACs = []lisp.HMACID{lisp.HMACSHA256, lisp.HMACSHA1}
	}
	if len(c.KDFs) == 0 {
		c.KDFs = []lisp.KDFID{lisp.KDFHKDFSHA256, lisp.KDFHKDFSHA1}
	}
	for _, h := range c.HMACs {
		if h > lisp.HMACSHA256 {
			return c, fmt.Errorf("control: LISP-SEC: HMAC ID %d: %w", h, ErrConfig)
		}
	}
	for _, k := range c.KDFs {
		if k > lisp.KDFHKDFSHA256 {
			return c, fmt.Errorf("control: LISP-SEC: KDF ID %d: %w", k, ErrConfig)
		}
	}
	c.HMACs, c.KDFs, c.ProtectedPaths = slices.Clone(c.HMACs), slices.Clone(c.KDFs), slices.Clone(c.ProtectedPaths)
	keys := make([]ResolverKey, len(c.Resolvers))
	for i, k := range c.Resolvers {
		if k.Addr.IsValid() {
			a, err := controlAddr(k.Addr)
			if err != nil {
				return c, fmt.Errorf("control: LISP-SEC key %d: %w", i, err)
			}
			if !slices.Contains(resolvers, a) {
				return c, fmt.Errorf("control: LISP-SEC key %d: %v is no Map-Resolver of ours: %w", i, a, ErrConfig)
			}
			k.Addr = a
		}
		def(&k.Wrap, lisp.WrapAES)
		if k.Wrap > lisp.WrapAES || k.Wrap == lisp.WrapAES && len(k.Key.Secret) == 0 {
			return c, fmt.Errorf("control: LISP-SEC key %d: key wrap %d, secret of %d octets: %w",
				i, k.Wrap, len(k.Key.Secret), ErrConfig)
		}
		keys[i] = k
	}
	c.Resolvers = keys
	for _, r := range resolvers {
		if c.Mode == LISPSECRequired && c.resolverKey(r) == nil {
			return c, fmt.Errorf("control: LISP-SEC is required, but there is no key for Map-Resolver %v: %w", r, ErrConfig)
		}
	}
	return c, nil
}

// resolverKey returns the key for a Map-Resolver, nil if there is none.
func (c *LISPSEC) resolverKey(r netip.AddrPort) *ResolverKey {
	var common *ResolverKey
	for i := range c.Resolvers {
		switch k := &c.Resolvers[i]; {
		case k.Addr == r:
			return k
		case !k.Addr.IsValid() && common == nil:
			common = k
		}
	}
	return common
}

// protectedPath reports whether One-Time Keys may pass to and from a unencrypted.
func (c *LISPSEC) protectedPath(a netip.Addr) bool {
	a = a.Unmap()
	return slices.ContainsFunc(c.ProtectedPaths, func(p netip.Prefix) bool { return p.Contains(a) })
}

// oneTimeKey draws an ITR-OTK (RFC 9303 §7.2).
func (e *Engine) oneTimeKey() (k lisp.OTK) {
	if _, err := io.ReadFull(e.rand, k[:]); err != nil {
		_, _ = rand.Read(k[:]) // as for nonces; never fails
	}
	return k
}
