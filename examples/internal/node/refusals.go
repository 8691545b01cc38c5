package node

import (
	"log/slog"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// refusals are the changes that the system refuses now. Each is tried again once a
// second or so, perhaps for days, so that the log tells of one at its first, second,
// fourth, eighth try and so on, of each further reason at once, and of its end.
type refusals struct {
	mu   sync.Mutex
	list []*refusal // the oldest first
}

type refusal struct {
	statusd.Refusal
	reasons []string // that the log has told of
}

// maxReasons bounds those of one refusal; further ones are logged like the same again.
const maxReasons = 8

// note takes the result of a try. With a logger it tells of what is worth it.
func (r *refusals) note(now time.Time, what string, err error, log *slog.Logger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.list, func(f *refusal) bool { return f.What == what })
	if err == nil {
		if i < 0 {
			return
		}
		f := r.list[i]
		r.list = slices.Delete(r.list, i, i+1)
		log.Info("the system no longer refuses a change", "what", what, "tries", f.Tries, "after", now.Sub(f.Since).Round(time.Millisecond))
		return
	}
	if i < 0 {
		i = len(r.list)
		r.list = append(r.list, &refusal{Refusal: statusd.Refusal{What: what, Since: now}})
	}
	f := r.list[i]
	f.Tries++
	f.Reason = err.Error()
	told := slices.Contains(f.reasons, f.Reason) || len(f.reasons) >= maxReasons
	if !told {
		f.reasons = append(f.reasons, f.Reason)
	}
	if !told || bits.OnesCount64(f.Tries) == 1 {
		log.Error("the system refused a change", "what", what, "err", err, "tries", f.Tries, "again_in", retryAfter)
	}
}

// now lists the refusals.
func (r *refusals) now() []statusd.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == 0 {
		return nil
	}
	out := make([]statusd.Refusal, 0, len(r.list))
	for _, f := range r.list {
		out = append(out, f.Refusal)
	}
	return out
}
