package control

import (
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// collect takes note of what happened to the map-cache during a step: for the
// data plane, for the probing of locators, and as events.
func (e *Engine) collect(now time.Time) {
	for cs := e.cache.Changes(); len(cs) > 0; cs = e.cache.Changes() {
		for _, c := range cs {
			e.keepChange(c)
			e.noteChange(now, c)
		}
	}
	e.setCacheTimer()
}

// maxChanges bounds what waits for Publish. Whoever does not call it loses the
// older ones, which shows as a gap in the numbers.
const maxChanges = 1 << 16

func (e *Engine) keepChange(c mapcache.Change) {
	if len(e.changes) >= maxChanges {
		e.changes = append(e.changes[:0], e.changes[maxChanges/2:]...)
	}
	e.changes = append(e.changes, c)
	e.lastChange = c.Seq
}

func (e *Engine) noteChange(now time.Time, c mapcache.Change) {
	e.signalChange(c)
	switch c.Reason {
	case mapcache.ReasonLocatorUp, mapcache.ReasonLocatorDown:
		return // ProbeUp and ProbeDown tell of them
	case mapcache.ReasonRefreshed:
		ttl := time.Duration(0)
		if ent, ok := e.cache.Get(c.Key); ok {
			ttl = ent.TTL
		}
		e.emit(CacheRefreshed{Stamp{now}, c.Key, ttl})
	case mapcache.ReasonAdded:
		e.emit(CacheAdded{Stamp{now}, c.Key, c.New.Verdict, c.New.RLOCs})
	case mapcache.ReasonUpdated:
		e.emit(LocatorsChanged{Stamp{now}, c.Key, c.Old.Verdict, c.New.Verdict, c.Old.RLOCs, c.New.RLOCs})
	default:
		e.emit(CacheRemoved{Stamp{now}, c.Key, c.Reason})
	}
	e.useLocators(now, c.Key, c.Old.RLOCs, c.New.RLOCs)
	e.noteSubscription(now, c.Key, c.New.Present)
}

// repeatChange hands the entry ent out again. A data plane that asks for what
// the map-cache has looked at it before the entry came, and at the change before
// it had something to ask for.
func (e *Engine) repeatChange(ent mapcache.Entry) {
	f := mapcache.Forwarding{Present: true, Action: ent.Action, RLOCs: ent.RLOCs}
	switch {
	case len(ent.RLOCs) > 0:
		f.Verdict = mapcache.Encapsulate
		if !e.anyUsable(ent.RLOCs) {
			f.Verdict = mapcache.NoLocator
		}
	case ent.Action == lisp.ActionNativelyForward:
		f.Verdict = mapcache.Native
	default:
		f.Verdict = mapcache.Drop
	}
	e.keepChange(mapcache.Change{Seq: e.lastChange, Reason: mapcache.ReasonRefreshed, Key: ent.Key, Old: f, New: f})
}

func (e *Engine) anyUsable(rs []mapcache.RLOC) bool {
	return slices.ContainsFunc(rs, func(r mapcache.RLOC) bool { return r.Priority != 255 && !r.Down })
}

// setCacheTimer follows the cache's own deadline.
func (e *Engine) setCacheTimer() {
	at := e.cache.Deadline()
	if at.IsZero() {
		e.timers.stop(&e.cacheTimer)
		return
	}
	if least := e.cacheAdvanced.Add(cacheStep); at.Before(least) {
		at = least
	}
	if e.cacheTimer.index == 0 || !e.cacheTimer.at.Equal(at) {
		e.timers.set(&e.cacheTimer, at)
	}
}

// cacheStep is the least time between two sweeps of the map-cache, each of
// which does a bounded piece of work.
const cacheStep = time.Millisecond

// advanceCache expires entries and refreshes those that are in use.
func (e *Engine) advanceCache(now time.Time) {
	e.cacheAdvanced = now
	for _, k := range e.cache.Advance(now) {
		// What was learned together is not asked for together again: each at a
		// random time in the first half of what is left.
		wait := time.Duration(0)
		if ent, ok := e.cache.Get(k); ok && !ent.Solicited && !ent.Expires.IsZero() {
			wait = e.jitter(ent.Expires.Sub(now) / 2)
		}
		e.refreshIn(now, k, wait)
	}
	e.setCacheTimer()
}
