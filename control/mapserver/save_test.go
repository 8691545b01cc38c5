package mapserver

import (
	"bytes"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLoadAfterClockStep: between Save and Load the clock is set, as by NTP some time
// after the start of a host without a clock of its own. Registrations have what was
// left of their lifetime, never more.
func TestLoadAfterClockStep(t *testing.T) {
	a := newBench(t)
	require.Len(t, a.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withProxy)), 1)
	a.advance(time.Minute) // of three
	var file bytes.Buffer
	require.NoError(t, a.s.Save(a.now, &file))
	for _, tc := range []struct {
		name  string
		clock time.Duration // by which it is later than when it was saved
		left  time.Duration // of the lifetime
	}{
		{"no step, at once", 0, 2 * time.Minute},
		{"no step, a minute later", time.Minute, time.Minute},
		{"behind by a year", -365 * 24 * time.Hour, 2 * time.Minute},
		{"at its beginning", -a.now.Sub(time.Unix(0, 0)), 2 * time.Minute},
		{"behind by a second", -time.Second, 2 * time.Minute},
		{"ahead", 10 * time.Minute, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			b.now = a.now.Add(tc.clock)
			used, _, err := b.s.Load(b.now, bytes.NewReader(file.Bytes()))
			require.NoError(t, err)
			require.Equal(t, 1, used)
			regs := b.s.Registrations(b.now)
			if tc.left == 0 {
				assert.Empty(t, regs)
				return
			}
			require.Len(t, regs, 1)
			assert.Equal(t, b.now.Add(tc.left), regs[0].XTRs[0].Expiry)
			assert.Equal(t, 3*time.Minute-tc.left, b.now.Sub(regs[0].XTRs[0].Seen))
			b.advance(tc.left)
			assert.Empty(t, b.s.Registrations(b.now))
		})
	}
}

// stepped is what time.Now returns instead of now when the clock was set ahead by d
// whole seconds since the process began: the monotonic reading is the same.
func stepped(t *testing.T, now time.Time, d time.Duration) time.Time {
	t.Helper()
	later := now
	*(*uint64)(unsafe.Pointer(&later)) += uint64(d/time.Second) << 30
	require.Zero(t, later.Sub(now))
	require.Equal(t, d, later.Round(0).Sub(now.Round(0)))
	return later
}

// TestSaveAfterClockStep: the clock was set while the server ran, whose own time
// goes on as it was. The next one has all registrations.
func TestSaveAfterClockStep(t *testing.T) {
	a := newBench(t)
	a.now = time.Now()
	require.Len(t, a.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withProxy)), 1)
	a.advance(time.Minute)
	now := stepped(t, a.now, 365*24*time.Hour)
	var file bytes.Buffer
	require.NoError(t, a.s.Save(now, &file))

	b := newBench(t)
	b.now = now.Round(0).Add(time.Second) // in another process
	_, _, err := b.s.Load(b.now, &file)
	require.NoError(t, err)
	regs := b.s.Registrations(b.now)
	require.Len(t, regs, 1)
	assert.Equal(t, b.now.Add(2*time.Minute-time.Second), regs[0].XTRs[0].Expiry)
}
