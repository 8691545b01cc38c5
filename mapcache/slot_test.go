package mapcache

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// What a slot says in short is what its set says.
func TestSlotChoosesAsItsSet(t *testing.T) {
	t.Parallel()
	r := func(n, priority, weight uint8) RLOC {
		return RLOC{Locator: Locator{Addr: netip.AddrFrom4([4]byte{192, 0, 2, n})}, Priority: priority, Weight: weight}
	}
	down := func(r RLOC) RLOC { r.Down = true; return r }
	tests := []struct {
		name  string
		rlocs []RLOC
		short bool
	}{
		{"one", []RLOC{r(1, 1, 1)}, true},
		{"equal", []RLOC{r(1, 1, 50), r(2, 1, 50)}, true},
		{"without weights", []RLOC{r(1, 1, 0), r(2, 1, 0)}, true},
		{"3:1", []RLOC{r(1, 1, 75), r(2, 1, 25)}, true},
		{"1:3", []RLOC{r(1, 1, 25), r(2, 1, 75)}, true},
		{"60:40", []RLOC{r(1, 1, 60), r(2, 1, 40)}, true},
		{"1:62", []RLOC{r(1, 1, 1), r(2, 1, 62)}, true},
		{"1:63", []RLOC{r(1, 1, 1), r(2, 1, 63)}, false},
		{"primary and backup", []RLOC{r(1, 2, 1), r(2, 1, 1)}, true},
		{"one without weight", []RLOC{r(1, 1, 0), r(2, 1, 1)}, true},
		{"three", []RLOC{r(1, 1, 1), r(2, 1, 1), r(3, 1, 1)}, false},
		{"one is down", []RLOC{r(1, 1, 1), down(r(2, 1, 1))}, true},
		{"the same around another", []RLOC{r(1, 1, 1), r(2, 1, 1), r(1, 1, 1)}, false},
		{"none to use", []RLOC{r(1, 255, 1)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := New(Config{})
			k := HostKey(0, netip.AddrFrom4([4]byte{10, 0, 0, 1}))
			require.NoError(t, c.Insert(time.Unix(0, 0), Mapping{Key: k, RLOCs: tt.rlocs, TTL: time.Hour}))
			c.Publish()
			v := c.View()
			s, ok := c.find(k)
			require.True(t, ok)
			assert.Equal(t, tt.short, s.locators != [2]uint32{})
			for i := range uint32(20_000) {
				hash := i * 0x9e3779b1
				if i < 1000 {
					hash = 1<<31 - 500 + i // around the middle
				}
				if got, want := v.choose(s, hash), v.chooseFrom(s.set(), s.entry(), hash); got != want {
					t.Fatalf("%#x: %+v, not %+v", hash, got, want)
				}
			}
		})
	}
	s := makeSlot(slotIDs-1, slotIDs-2, &hotSet{verdict: Drop, action: lisp.ActionDropNoReason})
	assert.Equal(t, [2]uint32{slotIDs - 1, slotIDs - 2}, [2]uint32{s.entry(), s.set()})
	assert.Zero(t, s.pick(1<<31))
}
