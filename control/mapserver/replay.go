package mapserver

import (
	"slices"
	"sync/atomic"

	"github.com/xtrkit/xtrkit/lisp"
)

const (
	recentRegisters = 32 // accepted Map-Registers whose repetition is recognised
	countingRun     = 10 // nonces in sequence that show that an xTR counts
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
	key   xtrKey
	nonce atomic.Uint64 // the last accepted; workers read it

	// The writer's own.
	known     bool // nonce is set
	run       uint8
	algorithm lisp.Algorithm
	seen      int64 // ticks of the last accepted Map-Register
	stamp     order // of the newest Delta
	claims    int
	idle      bool     // no claim left, remembered for its nonce
	forgotten bool     // not in Server.xtrs any more
	recent    []uint64 // fingerprints of accepted messages, a ring when full
	next      int
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
	if slices.Contains(x.recent, fingerprint) {
		return verdictDuplicate, false
	}
	if !x.enforced(alg) || !x.known || nonce > x.nonce.Load() {
		return verdictNew, false
	}
	if x.key.site.replay == ReplayAuto && alg != lisp.AlgorithmHMACSHA256HKDF && now-x.seen >= silence {
		return verdictNew, true
	}
	return verdictReplay, false
}

func (x *xtrState) enforced(alg lisp.Algorithm) bool {
	switch x.key.site.replay {
	case ReplayStrict:
		return true
	case ReplayOff:
		return false
	case ReplayAuto:
	}
	return alg == lisp.AlgorithmHMACSHA256HKDF || x.run >= countingRun && x.key.xtr != lisp.XTRID{}
}

// accept notes an accepted Map-Register.
func (x *xtrState) accept(now int64, alg lisp.Algorithm, nonce, fingerprint uint64) {
	last := x.nonce.Load()
	switch {
	case x.known && nonce == last+1:
		x.run = min(x.run+1, countingRun)
	case x.known && nonce > last && x.run >= countingRun:
		// Some were lost on the way.
	default:
		x.run = 0
	}
	x.known, x.algorithm, x.seen = true, alg, now
	x.nonce.Store(nonce)
	if len(x.recent) < recentRegisters {
		x.recent = append(x.recent, fingerprint)
		return
	}
	x.recent[x.next] = fingerprint
	x.next = (x.next + 1) % recentRegisters
}

// versionOlder compares Map-Versions as RFC 9302 §6 does; the Null version (0)
// is never older nor newer.
func versionOlder(v, than uint16) bool {
	const half = 1 << 11
	if v == 0 || than == 0 || v == than {
		return false
	}
	newer := v > than && v-than <= half || than > v && than-v > half
	return !newer
}
