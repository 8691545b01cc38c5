package multihome

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"time"
)

// ErrConfig is wrapped by the errors of New.
var ErrConfig = errors.New("bad configuration")

// DefaultSettle is the default of Config.Settle.
const DefaultSettle = 10 * time.Millisecond

// Config makes a State. The zero value takes every interface but loopback.
type Config struct {
	// Interfaces are names, or patterns as of path.Match ("wwan*"), of the
	// interfaces that count; one need not exist yet. Empty: all.
	Interfaces []string
	// Exclude are names and patterns of interfaces that never count, the device
	// of the tunnel above all.
	Exclude []string
	// Reject reports addresses that must not be used, such as EIDs. Addresses
	// that are not global unicast are never used. Nil: none.
	Reject func(netip.Addr) bool
	// SiteScope prefers unique local IPv6 addresses (RFC 4193) to global ones.
	SiteScope bool
	// Settle is how long a change waits for others of the same cause: when a link
	// comes up its addresses and routes follow within milliseconds. That one has gone
	// down is told at once: what follows makes it no better. Default DefaultSettle,
	// negative: not at all.
	Settle time.Duration
}

// Change is what a State tells.
type Change struct {
	// Interfaces are all that count by name, by index; do not modify.
	Interfaces []Interface
	// Lost: see Snapshot.
	Lost bool
}

// State keeps what there is, and says when that matters. It does no I/O and
// knows no clock. One goroutine at a time.
type State struct {
	cfg     Config
	started bool
	seen    []Interface // by the last Snapshot
	told    []Interface
	lost    bool
	due     time.Time // of a change, or zero
	again   time.Time // of what Again asked for, or zero
	changes []Change
}

// New makes a State. The error wraps ErrConfig and names the bad pattern.
func New(cfg Config) (*State, error) {
	for _, p := range slices.Concat(cfg.Interfaces, cfg.Exclude) {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return nil, fmt.Errorf("multihome: %w: interface pattern %q", ErrConfig, p)
		}
	}
	if cfg.Settle == 0 {
		cfg.Settle = DefaultSettle
	}
	return &State{cfg: cfg}, nil
}

// Handle takes the next Snapshot. The first one is told at once, whatever it
// shows.
func (s *State) Handle(now time.Time, snap Snapshot) {
	s.seen = s.interfaces(&snap)
	s.lost = s.lost || snap.Lost
	switch {
	case !s.started:
		s.started = true
		s.due = now
	case !s.lost && slices.EqualFunc(s.seen, s.told, func(a, b Interface) bool { return a.equal(&b) }):
		s.due = time.Time{} // it is as it was
	case s.due.IsZero():
		s.due = now.Add(max(s.cfg.Settle, 0))
	}
	if !s.due.IsZero() && s.lostLink() {
		s.due = now
	}
	s.Advance(now)
}

// Again makes s tell at a time what there is then, as a Change that is Lost: for
// who could not do all that the last Change asked for.
func (s *State) Again(at time.Time) {
	if s.again.IsZero() || at.Before(s.again) {
		s.again = at
	}
}

// lostLink reports whether an interface was told to have a link that it has no more.
func (s *State) lostLink() bool {
	return slices.ContainsFunc(s.told, func(was Interface) bool {
		return was.Up && !slices.ContainsFunc(s.seen, func(is Interface) bool { return is.Index == was.Index && is.Up })
	})
}

// Advance makes the change that is due.
func (s *State) Advance(now time.Time) {
	isDue := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	again := isDue(s.again)
	if !again && !isDue(s.due) {
		return
	}
	s.lost = s.lost || again
	if s.lost {
		s.again = time.Time{}
	}
	s.due = time.Time{}
	s.told = s.seen
	s.changes = append(s.changes, Change{Interfaces: s.told, Lost: s.lost})
	s.lost = false
}

// Deadline is when Advance must be called next; zero means never.
func (s *State) Deadline() time.Time {
	if s.due.IsZero() || !s.again.IsZero() && s.again.Before(s.due) {
		return s.again
	}
	return s.due
}

// Next returns the next change. Each replaces those before.
func (s *State) Next() (Change, bool) {
	if len(s.changes) == 0 {
		return Change{}, false
	}
	c := s.changes[0]
	s.changes = slices.Delete(s.changes, 0, 1)
	return c, true
}

// Interfaces returns what was told last; do not modify.
func (s *State) Interfaces() []Interface { return s.told }

func (s *State) interfaces(snap *Snapshot) []Interface {
	var out []Interface
	for _, l := range snap.Links {
		if l.Loopback || !s.counts(l.Name) {
			continue
		}
		i := Interface{Index: l.Index, Name: l.Name, Up: l.Up && l.Running}
		i.IPv4 = s.addrs(snap, l.Index, false)
		i.IPv6 = s.addrs(snap, l.Index, true)
		i.Default4 = best(snap.Routes, l.Index, false)
		i.Default6 = best(snap.Routes, l.Index, true)
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

func (s *State) counts(name string) bool {
	matches := func(p string) bool { ok, _ := path.Match(p, name); return ok }
	if slices.ContainsFunc(s.cfg.Exclude, matches) {
		return false
	}
	return len(s.cfg.Interfaces) == 0 || slices.ContainsFunc(s.cfg.Interfaces, matches)
}

// addrs returns the addresses of an interface that can be locators, the best
// first, and among equals in the order of the kernel.
func (s *State) addrs(snap *Snapshot, index int, v6 bool) []netip.Addr {
	var as []Addr
	for _, a := range snap.Addrs {
		if a.IfIndex == index && a.Addr.Is6() == v6 && !a.Tentative &&
			a.Addr.IsGlobalUnicast() && (s.cfg.Reject == nil || !s.cfg.Reject(a.Addr)) {
			as = append(as, a)
		}
	}
	rank := func(a Addr) int {
		return 4*toInt(a.Deprecated) + 2*toInt(v6 && a.Addr.IsPrivate() != s.cfg.SiteScope) + toInt(a.Temporary)
	}
	slices.SortStableFunc(as, func(a, b Addr) int { return cmp.Compare(rank(a), rank(b)) })
	var out []netip.Addr
	for _, a := range as {
		if !slices.Contains(out, a.Addr) {
			out = append(out, a.Addr)
		}
	}
	return out
}

func best(rs []Route, index int, v6 bool) *Route {
	var found *Route
	for _, r := range rs {
		if r.IfIndex == index && r.IPv6 == v6 && (found == nil || r.Metric < found.Metric) {
			found = &r
		}
	}
	return found
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
