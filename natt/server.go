package natt

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Defaults of a zero ServerConfig.
const (
	DefaultRTRListTime = time.Hour
	DefaultInfoRate    = 1000 // Info-Replies a second
)

// maxOffered is how many RTRs an Info-Reply names: with an IPv6 address each it is
// not six times as long as the Info-Request.
const maxOffered = 8

// SiteInfo is what a Server knows of a site.
type SiteInfo struct {
	// Name is for events.
	Name string
	// Keys are those of the site.
	Keys []lisp.Key
	// RTRs replace those of ServerConfig, if not nil.
	RTRs []netip.Addr
}

// ServerConfig configures a Server. The zero value of a field is its default.
type ServerConfig struct {
	// Site finds whose EID-Prefix it is. Nil: nobody's, so that only Info-Requests
	// of lispers.net can be answered. It is called by who calls Answer.
	Site func(iid uint32, eid netip.Prefix) (SiteInfo, bool)

	// RTRs are offered to nodes behind a NAT, in order. One Info-Reply names up to
	// eight, those of the address family that the Info-Request came by.
	RTRs []netip.Addr

	// TTL is for how long a node may keep the list, in whole minutes.
	TTL time.Duration

	// LispersNet also answers Info-Requests of lispers.net, which are not
	// authenticated.
	LispersNet bool

	// Rate bounds the Info-Replies a second that Handle makes, all and a twentieth
	// of it to one source address. Answer leaves that to its caller.
	Rate float64
}

// ServerReason says why a Server did not answer.
type ServerReason uint8

// Reasons of a Server.
const (
	ServerAnswered       ServerReason = iota // it did
	ServerMalformed                          // it does not parse
	ServerReply                              // an Info-Reply
	ServerEID                                // no EID-Prefix of a configured site
	ServerKey                                // the site has no such Key ID or algorithm
	ServerAuthentication                     // the authentication data doesn't verify
	ServerVariant                            // an Info-Request of lispers.net
	ServerRate                               // a rate limit
	ServerQueueFull                          // Next is not called enough
	NumServerReasons
)

var serverReasonNames = [NumServerReasons]string{
	"answered", "malformed", "no Info-Request", "EID-Prefix not configured", "unknown Key ID or algorithm",
	"authentication failed", "lispers.net is not enabled", "rate limit", "send queue full",
}

func (r ServerReason) String() string {
	if r < NumServerReasons {
		return serverReasonNames[r]
	}
	return fmt.Sprintf("ServerReason(%d)", uint8(r))
}

// InfoAnswer is what came of an Info-Request.
type InfoAnswer struct {
	Reason ServerReason
	Err    error // more about it; may be nil
	Site   string
	IID    uint32
	EID    netip.Prefix // invalid with lispers.net
	Host   string       // of lispers.net
	RTRs   int          // how many were named
}

// Server is the Map-Server's side of NAT traversal (draft-ermagan-lisp-nat-traversal-19
// §5.2): it tells nodes which address and port they come from, and which RTRs
// there are. It keeps nothing about them.
//
// Answer may be called by any number of goroutines; the other methods, which make
// a core of it, by one at a time. A Map-Server embeds it by Answer.
type Server struct {
	cfg     ServerConfig
	minutes uint32

	all     bucket
	sources sourceBuckets
	out     []lisp.Datagram
	answers []InfoAnswer
	stats   ServerStats
}

// ServerStats is a snapshot of what Handle has counted.
type ServerStats struct {
	InfoRequests uint64
	InfoReplies  uint64
	AnswersLost  uint64 // InfoAnswers that NextAnswer was not called for
	Dropped      [NumServerReasons]uint64
}

// NewServer makes a Server. The error wraps ErrConfig.
func NewServer(cfg ServerConfig) (*Server, error) {
	def(&cfg.TTL, DefaultRTRListTime)
	def(&cfg.Rate, DefaultInfoRate)
	minutes := int64(cfg.TTL / time.Minute)
	if minutes < 1 || minutes > 0xffffffff || cfg.Rate < 0 {
		return nil, fmt.Errorf("natt: Server: TTL %v, rate %v: %w", cfg.TTL, cfg.Rate, ErrConfig)
	}
	rtrs := make([]netip.Addr, len(cfg.RTRs))
	for i, a := range cfg.RTRs {
		if rtrs[i] = a.Unmap(); !usable(rtrs[i]) {
			return nil, fmt.Errorf("natt: Server: RTR %v: %w", a, ErrConfig)
		}
	}
	cfg.RTRs = rtrs
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	return &Server{
		cfg: cfg, minutes: uint32(minutes), all: newBucket(cfg.Rate),
		sources: sourceBuckets{seed: binary.BigEndian.Uint64(seed[:]), rate: max(1, cfg.Rate/20)},
	}, nil
}

// Answer appends the Info-Reply to the Info-Request that d is to b, and says whose
// it is. It goes back the way that d came, from the control port. Nothing is
// appended unless Reason is ServerAnswered. d.Bytes are only read during the call.
// How often it is called for a source is for the caller to bound.
func (s *Server) Answer(b []byte, d lisp.Datagram) ([]byte, InfoAnswer) {
	if lisp.TypeOf(d.Bytes) != lisp.TypeInfo || d.Bytes[0]&0x08 != 0 {
		return b, InfoAnswer{Reason: ServerReply}
	}
	var m lisp.InfoRequest
	if err := m.DecodeFromBytes(d.Bytes); err != nil {
		return b, InfoAnswer{Reason: ServerMalformed, Err: err}
	}
	from := netip.AddrPortFrom(d.Remote.Addr().Unmap(), d.Remote.Port())
	if !usable(from.Addr()) || from.Port() == 0 {
		return b, InfoAnswer{Reason: ServerMalformed}
	}
	if name, ok := hostName(m.Host); ok && m.EID.IsZero() {
		return s.answerName(b, &m, from, name)
	}
	var a InfoAnswer
	var ok bool
	if a.IID, a.EID, ok = m.Prefix(); !ok || s.cfg.Site == nil {
		a.Reason = ServerEID
		return b, a
	}
	a.EID = a.EID.Masked()
	site, ok := s.cfg.Site(a.IID, a.EID)
	if !ok {
		a.Reason = ServerEID
		return b, a
	}
	a.Site = site.Name
	key, reason, err := verifyInfo(d.Bytes, &m, site.Keys)
	if err != nil {
		a.Reason, a.Err = reason, err
		return b, a
	}
	n := s.traversal(d.Local, from, site.RTRs)
	a.RTRs = len(n.RTRs)
	reply := lisp.InfoReply{Nonce: m.Nonce, TTL: s.minutes, MaskLen: m.MaskLen, EID: m.EID}
	if len(n.RTRs) == 0 {
		n.RTRs = []lisp.Address{{}} // as OOR has it
	}
	if reply.NAT, err = lisp.LCAFAddress(n); err != nil {
		a.Reason, a.Err = ServerMalformed, err
		return b, a
	}
	out, err := reply.AppendSigned(b, key)
	if err != nil {
		a.Reason, a.Err = ServerKey, err
		return b, a
	}
	return out, a
}

// verifyInfo finds the key that an Info-Request is authenticated with. The digest
// of the answer is as long.
func verifyInfo(msg []byte, m *lisp.InfoRequest, keys []lisp.Key) (lisp.Key, ServerReason, error) {
	reason, err := ServerKey, fmt.Errorf("key %d %s: %w", m.Auth.KeyID, m.Auth.Algorithm, lisp.ErrAuth)
	for _, k := range keys {
		if k.ID != m.Auth.KeyID || k.Algorithm != m.Auth.Algorithm || k.Algorithm == lisp.AlgorithmNone {
			continue
		}
		reason = ServerAuthentication
		if err = lisp.Verify(msg, k); err == nil {
			whole := k
			whole.Truncate = false
			k.Truncate = len(m.Auth.Data) < whole.DigestLen()
			return k, ServerAnswered, nil
		}
	}
	return lisp.Key{}, reason, err
}

// traversal is what there is to say to a node that comes from there.
func (s *Server) traversal(local, from netip.AddrPort, rtrs []netip.Addr) *lisp.NATTraversal {
	n := &lisp.NATTraversal{MSPort: lisp.ControlPort, ETRPort: from.Port(), GlobalETR: lisp.AddressFrom(from.Addr())}
	if a := local.Addr().Unmap(); usable(a) {
		n.MS = lisp.AddressFrom(a)
	}
	if local.Port() != 0 {
		n.MSPort = local.Port()
	}
	if rtrs == nil {
		rtrs = s.cfg.RTRs
	}
	for _, a := range rtrs {
		if a = a.Unmap(); a.Is4() == from.Addr().Is4() && len(n.RTRs) < maxOffered {
			n.RTRs = append(n.RTRs, lisp.AddressFrom(a))
		}
	}
	return n
}

// Handle answers an Info-Request to the control port and reports whether d was one.
func (s *Server) Handle(now time.Time, d lisp.Datagram) bool {
	if lisp.TypeOf(d.Bytes) != lisp.TypeInfo || d.Bytes[0]&0x08 != 0 || d.Local.Port() == lisp.DataPort {
		return false
	}
	s.stats.InfoRequests++
	a := InfoAnswer{Reason: ServerRate}
	var b []byte
	switch {
	case len(s.out) >= maxRTRQueue:
		a.Reason = ServerQueueFull
	case s.sources.allow(now, d.Remote.Addr().Unmap()) && s.all.allow(now):
		b, a = s.Answer(nil, d)
	}
	if a.Reason == ServerAnswered {
		s.stats.InfoReplies++
		s.out = append(s.out, lisp.Datagram{
			Local: netip.AddrPortFrom(d.Local.Addr(), lisp.ControlPort), Remote: d.Remote, IfIndex: d.IfIndex, Bytes: b,
		})
	} else {
		s.stats.Dropped[a.Reason]++
	}
	if len(s.answers) >= maxRTREvents {
		s.stats.AnswersLost++
		s.answers = s.answers[1:]
	}
	s.answers = append(s.answers, a)
	return true
}

// Advance does nothing: a Server has no timers.
func (s *Server) Advance(time.Time) {}

// Deadline is never.
func (s *Server) Deadline() time.Time { return time.Time{} }

// Next returns the next datagram to send.
func (s *Server) Next() (lisp.Datagram, bool) {
	if len(s.out) == 0 {
		return lisp.Datagram{}, false
	}
	d := s.out[0]
	s.out = slices.Delete(s.out, 0, 1)
	return d, true
}

// NextAnswer returns what came of the oldest Info-Request not yet returned.
func (s *Server) NextAnswer() (InfoAnswer, bool) {
	if len(s.answers) == 0 {
		return InfoAnswer{}, false
	}
	a := s.answers[0]
	s.answers = slices.Delete(s.answers, 0, 1)
	return a, true
}

// Stats returns a snapshot of the counters.
func (s *Server) Stats() ServerStats { return s.stats }
