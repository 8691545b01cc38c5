package control

import (
	"math/bits"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
)

// SetLocals replaces our own locators: in the Dataplane, in Engine and in every
// other core that has such a method. It returns at once, and may be called
// before Run; only the latest call counts. A Do that follows finds it done.
func (r *Runner) SetLocals(now time.Time, ls []mapcache.Local) {
	r.mu.Lock()
	r.locals, r.localsAt, r.localsNew = append([]mapcache.Local(nil), ls...), now, true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// takeLocals hands the locators of SetLocals on. The Dataplane comes first, so
// that what Engine makes peers send is received.
func (r *Runner) takeLocals() {
	r.mu.Lock()
	ls, now, news := r.locals, r.localsAt, r.localsNew
	r.localsNew = false
	r.mu.Unlock()
	if !news {
		return
	}
	if r.cfg.Dataplane != nil {
		r.takeUsage(time.Now()) // who has to know of the change
	}
	r.taken = ls
	r.setDataplaneLocals(now, ls)
	for _, c := range r.cores {
		if c, ok := c.(interface {
			SetLocals(time.Time, []mapcache.Local)
		}); ok {
			c.SetLocals(now, ls)
		}
		if c, ok := c.(rtrCore); ok {
			c.SetRLOCs(localAddrs(ls))
		}
	}
}

// setDataplaneLocals tries again in a while when the Dataplane refuses: an
// address may not be usable yet.
func (r *Runner) setDataplaneLocals(now time.Time, ls []mapcache.Local) {
	r.applied, r.retryAt = nil, time.Time{}
	if r.cfg.Dataplane == nil {
		return
	}
	r.silentSeq = r.cfg.Engine.silentSeq
	err := r.cfg.Dataplane.SetLocals(r.cfg.Engine.withoutSilent(ls))
	if err == nil {
		if r.refusals > 0 {
			r.log.Info("data plane takes the locators again", "tries", r.refusals)
		}
		r.refusals, r.refusedWhy = 0, ""
		return
	}
	r.applied, r.retryAt = ls, now.Add(localsRetry)
	// It may be for ever: each reason is told once, and then less and less often.
	why := err.Error()
	if r.refusals++; why != r.refusedWhy || bits.OnesCount64(r.refusals) == 1 {
		r.log.Warn("data plane does not take the locators, will try again", "err", err, "tries", r.refusals)
	}
	r.refusedWhy = why
}
