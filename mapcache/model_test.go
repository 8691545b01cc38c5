package mapcache

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// model is the reference: a slice that is searched from end to end, with the
// rules as RFC 9300 §9, RFC 9301 §5.4 and §5.5 and the doc comments put them.
type model struct {
	entries []*modelEntry
	down    map[Locator]map[Cause]bool
	families
}

type families struct{ no4, no6 bool }

type modelEntry struct {
	Mapping
	updated, natural time.Time // natural is zero for static ones
}

func (e *modelEntry) learned() bool { return e.Origin != OriginStatic }

// within reports whether p is inside q, q itself included.
func within(p, q netip.Prefix) bool { return p.Bits() >= q.Bits() && q.Contains(p.Addr()) }

func (m *model) find(k Key) *modelEntry {
	for _, e := range m.entries {
		if e.Key == k {
			return e
		}
	}
	return nil
}

func (m *model) remove(k Key) {
	m.entries = slices.DeleteFunc(m.entries, func(e *modelEntry) bool { return e.Key == k })
	m.forget()
}

// forget drops the state of locators that no mapping lists.
func (m *model) forget() {
	for l := range m.down {
		listed := slices.ContainsFunc(m.entries, func(e *modelEntry) bool {
			return slices.ContainsFunc(e.RLOCs, func(r RLOC) bool { return r.Locator == l })
		})
		if !listed {
			delete(m.down, l)
		}
	}
}

// expires is the end of an entry: its own, or that of an entry within.
func (m *model) expires(e *modelEntry) time.Time {
	end := e.natural
	if !e.learned() {
		return end
	}
	for _, x := range m.entries {
		if x.learned() && x.IID == e.IID && within(x.Prefix, e.Prefix) && x.natural.Before(end) {
			end = x.natural
		}
	}
	return end
}

func (m *model) expire(now time.Time) {
	due := make(map[Key]bool)
	for _, e := range m.entries {
		if end := m.expires(e); !end.IsZero() && !end.After(now) {
			due[e.Key] = true
		}
	}
	m.entries = slices.DeleteFunc(m.entries, func(e *modelEntry) bool { return due[e.Key] })
	m.forget()
}

func (m *model) insert(now time.Time, in Mapping, cfg Config) error {
	old := m.find(in.Key)
	if old != nil && !old.learned() && in.Origin != OriginStatic {
		return ErrStatic
	}
	if in.TTL == 0 {
		if old != nil {
			m.remove(in.Key)
		}
		return nil
	}
	if in.Asked.IsValid() && in.Origin != OriginStatic {
		for _, e := range slices.Clone(m.entries) {
			if e.learned() && e.IID == in.IID && e.Prefix != in.Prefix && within(e.Prefix, in.Prefix) &&
				within(in.Asked, e.Prefix) && !e.updated.Equal(now) {
				m.remove(e.Key)
			}
		}
	}
	e := &modelEntry{Mapping: in, updated: now}
	e.Asked = netip.Prefix{}
	if e.learned() {
		ttl := in.TTL
		if ttl == TTLForever {
			ttl = cfg.UnlimitedTTL
		}
		e.natural = now.Add(min(max(ttl, cfg.MinTTL), cfg.MaxTTL))
	}
	m.entries = slices.DeleteFunc(m.entries, func(x *modelEntry) bool { return x.Key == in.Key })
	m.entries = append(m.entries, e)
	m.forget()
	return nil
}

func (m *model) lookup(iid uint32, a netip.Addr) *modelEntry {
	var best *modelEntry
	for _, e := range m.entries {
		if e.IID == iid && e.Prefix.Contains(a) && (best == nil || e.Prefix.Bits() > best.Prefix.Bits()) {
			best = e
		}
	}
	return best
}

func (m *model) up(l Locator) bool {
	return len(m.down[l]) == 0 && (!l.Addr.Is4() || !m.no4) && (!l.Addr.Is6() || !m.no6)
}

// choices returns the locators that a flow may get: one, or several if the float
// arithmetic here cannot tell which has the better score.
func (m *model) choices(rlocs []RLOC, hash uint32) []Locator {
	usable := func(r RLOC) bool {
		return r.Priority < 255 && !r.Down && r.encapsulable() && m.up(r.Locator)
	}
	best := 256
	for _, r := range rlocs {
		if usable(r) {
			best = min(best, int(r.Priority))
		}
	}
	var all, weighted []RLOC // of the best Priority, once per unit of Weight
	for _, r := range rlocs {
		if int(r.Priority) == best && r.encapsulable() {
			all = append(all, r)
			weighted = append(weighted, slices.Repeat([]RLOC{r}, int(r.Weight))...)
		}
	}
	if len(weighted) > 0 {
		all = weighted
	}
	if len(all) == 0 {
		return nil
	}
	// Weights that sum up to 256 after division by their gcd are exact.
	if r := all[uint64(hash)*uint64(len(all))>>32]; usable(r) {
		return []Locator{r.Locator}
	}
	type scored struct {
		Locator
		level int
		score float64
	}
	var list []scored
	for _, r := range rlocs {
		if usable(r) && int(r.Priority) == best {
			level := 2 * int(r.Priority)
			if r.Weight == 0 {
				level++
			}
			u := (float64(jhash(hash, r.salt())) + 1) / (1 << 32)
			list = append(list, scored{r.Locator, level, -math.Log2(u) / float64(max(r.Weight, 1))})
		}
	}
	slices.SortStableFunc(list, func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.score, b.score))
	})
	var out []Locator
	for _, s := range list {
		if s.level == list[0].level && s.score <= list[0].score*1.001+0.0001 {
			out = append(out, s.Locator)
		}
	}
	return out
}

// modelSteps is the number of random operations of TestAgainstModel, all its runs
// together; XTRKIT_MODEL_STEPS says how many for the gate.
func modelSteps(t *testing.T) int {
	if s := os.Getenv("XTRKIT_MODEL_STEPS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		return n
	}
	return 60_000
}

func TestAgainstModel(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  Config
	}{
		{"default", Config{}},
		{"clamped", Config{MinTTL: 3 * time.Second, MaxTTL: time.Hour, UnlimitedTTL: 30 * time.Minute, RefreshFraction: 0.5}},
		{"small", Config{MaxEntries: 24, IdleTime: 5 * time.Second}},
	}
	const seeds = 4
	steps := modelSteps(t) / len(tests) / seeds
	for _, tt := range tests {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprintf("%s/%d", tt.name, seed), func(t *testing.T) {
				t.Parallel()
				d := newDriver(t, &randSource{rand.New(rand.NewPCG(seed, 1)), steps}, tt.cfg)
				d.run()
				assert.Positive(t, d.counts["hit"])
				assert.Positive(t, d.counts["mac"])
				assert.Positive(t, d.counts["restart"])
				assert.Positive(t, d.counts["status"])
				assert.Positive(t, d.counts["expired"])
				assert.Positive(t, d.counts["replaced"])
				assert.Positive(t, d.counts["locator-down"])
				assert.Positive(t, d.counts["refresh"])
				assert.Positive(t, d.counts["smr"])
				if tt.cfg.MaxEntries > 0 {
					assert.Positive(t, d.counts["evicted"])
				}
			})
		}
	}
}

// FuzzCache lets the bytes choose the operations.
func FuzzCache(f *testing.F) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b, uint8(seed))
	}
	f.Fuzz(func(t *testing.T, ops []byte, kind uint8) {
		cfg := Config{}
		if kind%2 == 1 {
			cfg = Config{MaxEntries: 8, IdleTime: 5 * time.Second}
		}
		newDriver(t, &byteSource{ops}, cfg).run()
	})
}
