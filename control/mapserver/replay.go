package mapserver

import (
	"hash/maphash"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/xtrkit/xtrkit/lisp"
)

const (
	recentRegisters = 32 // accepted Map-Registers whose repetition is recognised
	countingRun     = 10 // nonces in sequence that show that an xTR counts
	// countingStep is how much greater than the last each of them may be: an xTR that
	// counts sends some to other Map-Servers. Random ones are not so near to each other.
	countingStep = 1 << 12
	// maxIdle is how many xTRs of a site are remembered that have nothing
	// registered. A site that makes up xTR-IDs forgets its own nonces then, and
	// takes no room from others.
	maxIdle = 4096
)

// xtrKey is a security association: an xTR and a key (RFC 9301 §5.6). The xTRs
// of a site that send no xTR-ID share one per key: their source address is not
// authenticated and can't tell them apart.
type xtrKey struct {
	site   *site
	keyID  uint8
	xtr    lisp.XTRID
	siteID lisp.SiteID
}

// xtrState is what is remembered of an association to recognise replays.
type xtrState struct {
	// key, in parts
	site   *site
	xtr    lisp.XTRID
	siteID lisp.SiteID
	keyID  uint8

	// The writer's own, but for nonce.
	known     bool // nonce is set
	unordered bool // nonces have gone back, so that a large one may be one of recent
	idle      bool // no claim left, remembered for its nonce
	forgotten bool // not in Server.xtrs any more
	run       uint8
	algorithm lisp.Algorithm
	next      uint8 // of recent
	nonce     atomic.Uint64
	seen      int64 // ticks of the last accepted Map-Register
	stamp     order // of the newest Delta
	claims    int32
	count     uint8                   // of recent
	recent    [recentRegisters]uint32 // fingerprints of accepted messages, a ring
}

func newXTR(k xtrKey) *xtrState {
	return &xtrState{site: k.site, keyID: k.keyID, xtr: k.xtr, siteID: k.siteID}
}

func (x *xtrState) key() xtrKey {
	return xtrKey{site: x.site, keyID: x.keyID, xtr: x.xtr, siteID: x.siteID}
}

// xtrs are the associations by a hash of their keys, which is smaller than the
// keys; clashes are those whose hash another one has.
type xtrs struct {
	byHash  map[uint64]*xtrState
	clashes map[xtrKey]*xtrState
	seed    maphash.Seed
}

func newXTRs() xtrs {
	return xtrs{byHash: make(map[uint64]*xtrState), clashes: make(map[xtrKey]*xtrState), seed: maphash.MakeSeed()}
}

func (t *xtrs) hash(k xtrKey) uint64 { return maphash.Comparable(t.seed, k) }
func (t *xtrs) len() int             { return len(t.byHash) + len(t.clashes) }

func (t *xtrs) find(k xtrKey) *xtrState {
	if x := t.byHash[t.hash(k)]; x != nil && x.key() == k {
		return x
	}
	return t.clashes[k]
}

func (t *xtrs) keep(x *xtrState) {
	h := t.hash(x.key())
	if other := t.byHash[h]; other != nil && other != x {
		t.clashes[x.key()] = x
		return
	}
	t.byHash[h] = x
}

func (t *xtrs) forget(x *xtrState) {
	x.forgotten = true
	if h := t.hash(x.key()); t.byHash[h] == x {
		delete(t.byHash, h)
		return
	}
	delete(t.clashes, x.key())
}

// all yields every association, in no order.
func (t *xtrs) all() iter.Seq[*xtrState] {
	return func(yield func(*xtrState) bool) {
		for _, x := range t.byHash {
			if !yield(x) {
				return
			}
		}
		for _, x := range t.clashes {
			if !yield(x) {
				return
			}
		}
	}
}

func (s *Server) findXTR(k xtrKey) *xtrState { return s.xtrs.find(k) }

func (s *Server) keepXTR(x *xtrState) {
	s.xtrs.keep(x)
	s.xtrCount.Store(int64(s.xtrs.len()))
}

func (s *Server) forgetXTR(x *xtrState) {
	s.xtrs.forget(x)
	delete(s.paths, x)
	s.xtrCount.Store(int64(s.xtrs.len()))
}

type verdict uint8

const (
	verdictNew verdict = iota
	verdictDuplicate
	verdictReplay
)

// judge decides about an authenticated Map-Register, without changing anything.
// relaxed says that an xTR known to count has been let off.
func (x *xtrState) judge(now, silence int64, alg lisp.Algorithm, nonce, fingerprint uint64) (v verdict, relaxed bool) {
	// A nonce beyond all there were is new without a look.
	if (x.unordered || nonce <= x.nonce.Load()) && slices.Contains(x.recent[:x.count], fold(fingerprint)) {
		return verdictDuplicate, false
	}
	if !x.enforced(alg) || !x.known || nonce > x.nonce.Load() {
		return verdictNew, false
	}
	if x.site.terms().replay == ReplayAuto && alg != lisp.AlgorithmHMACSHA256HKDF && now-x.seen >= silence {
		return verdictNew, true
	}
	return verdictReplay, false
}

func (x *xtrState) enforced(alg lisp.Algorithm) bool {
	switch x.site.terms().replay {
	case ReplayStrict:
		return true
	case ReplayOff:
		return false
	case ReplayAuto:
	}
	return alg == lisp.AlgorithmHMACSHA256HKDF || x.run >= countingRun && x.xtr != lisp.XTRID{}
}

// accept notes an accepted Map-Register.
func (x *xtrState) accept(now int64, alg lisp.Algorithm, nonce, fingerprint uint64) {
	last := x.nonce.Load()
	x.unordered = x.unordered || x.known && nonce < last
	switch {
	case x.known && nonce > last && nonce-last <= countingStep:
		x.run = min(x.run+1, countingRun)
	case x.known && nonce > last && x.run >= countingRun:
		// Some were lost on the way.
	default:
		x.run = 0
	}
	x.known, x.algorithm, x.seen = true, alg, now
	x.nonce.Store(nonce)
	x.recent[x.next] = fold(fingerprint)
	x.next = (x.next + 1) % recentRegisters
	x.count = min(x.count+1, recentRegisters)
}

// fold makes half of a fingerprint: one of 32 is the same by chance once in
// 10^8 messages with unordered nonces, and that one is not applied.
func fold(fingerprint uint64) uint32 { return uint32(fingerprint ^ fingerprint>>32) }

// versionOlder compares Map-Versions (RFC 9302 §6); the Null version is never older
// nor newer.
func versionOlder(v, than uint16) bool {
	return v != lisp.NullMapVersion && than != lisp.NullMapVersion && lisp.CompareMapVersions(v, than) < 0
}
