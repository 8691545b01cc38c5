package netsim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

func TestInject(t *testing.T) {
	n := New(Config{Start: start})
	_, _, a := host(n, "a", n.Internet(), Link{Latency: 10 * time.Millisecond}, "192.0.2.1")
	n.Inject(ap("203.0.113.9:7"), ap("192.0.2.1:4342"), []byte("who am I"))
	n.Inject(ap("203.0.113.9:7"), ap("192.0.2.2:4342"), []byte("to nobody"))
	n.Run(time.Second)
	require.Equal(t, []string{"who am I"}, a.texts())
	assert.Equal(t, ap("203.0.113.9:7"), a.got[0].d.Remote)
	assert.Equal(t, 10*time.Millisecond, a.got[0].at)
	assert.EqualValues(t, 2, n.Count(Injected))
	assert.EqualValues(t, 1, n.Count(NoRoute))
	assert.Zero(t, n.Count(Sent))
}

// TestSetClock: a node's cores live by its own clock.
func TestSetClock(t *testing.T) {
	n := New(Config{Start: start})
	a, _, ca := host(n, "a", n.Internet(), Link{}, "192.0.2.1")
	_, _, cb := host(n, "b", n.Internet(), Link{}, "192.0.2.2")
	ca.message = func(int) lisp.Datagram { return message("192.0.2.2:4342", "tick") }
	a.Step(func(now time.Time) { ca.every, ca.next = time.Minute, now.Add(time.Minute) })
	n.Run(90 * time.Second)
	require.Len(t, cb.got, 1)
	a.SetClock(time.Hour) // an hour of ticks is due, one at a time
	n.Run(0)
	require.Len(t, cb.got, 61)
	assert.Equal(t, 90*time.Second, cb.got[60].at)
	assert.Equal(t, n.Now().Add(time.Hour), a.Now())
	n.Run(time.Minute)
	require.Len(t, cb.got, 62)
	a.SetClock(0)
	n.Run(time.Hour)
	require.Len(t, cb.got, 62, "it waits for the time that was")
	n.Run(time.Minute)
	require.Len(t, cb.got, 63)
}

func TestReplace(t *testing.T) {
	n := New(Config{Start: start})
	a, _, old := host(n, "a", n.Internet(), Link{}, "192.0.2.1")
	old.every, old.next = time.Minute, start.Add(time.Minute)
	old.message = func(int) lisp.Datagram { return message("192.0.2.1:4342", "old") }
	a.Step(func(time.Time) {})
	c := &testCore{every: time.Minute, next: start.Add(90 * time.Second)}
	c.message = func(int) lisp.Datagram { return message("192.0.2.1:4342", "new") }
	a.Replace(old, c)
	n.Run(100 * time.Second)
	assert.Empty(t, old.got)
	require.Equal(t, []string{"new"}, c.texts())
	assert.Equal(t, 90*time.Second, c.got[0].at)
	assert.Equal(t, 0, a.Index())
	assert.Equal(t, 1, n.AddNode("b").Index())
}

// TestTraceHash: every octet counts, and where one ends and the next begins.
func TestTraceHash(t *testing.T) {
	sum := func(parts ...string) traceHash {
		h := traceHash(hashSeed)
		for _, p := range parts {
			h.bytes([]byte(p))
		}
		return h
	}
	seen := map[traceHash][]string{}
	for _, parts := range [][]string{
		{""},
		{"a"},
		{"b"},
		{"a", ""},
		{"", "a"},
		{"a\x00"},
		{"\x00a"},
		{"01234567"},
		{"01234568"},
		{"11234567"},
		{"012345678"},
		{"0123456", "78"},
		{"89abcdef01234567"},
		{"0123456789abcdef"},
		{"0123456789abcdef0123456789abcdef"},
		{"0123456789abcdef0123456789abcdeg"},
	} {
		h := sum(parts...)
		assert.Empty(t, seen[h], parts)
		seen[h] = parts
	}
}
