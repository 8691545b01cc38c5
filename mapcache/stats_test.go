package mapcache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func TestStats(t *testing.T) {
	t.Parallel()
	in7 := positive("10.1.0.0/16", "192.0.2.1", time.Hour)
	in7.IID = 7
	c := newCache(t, mapcache.Config{MaxEntries: 5},
		positive("10.1.0.0/16", "192.0.2.1", time.Hour),
		positive("10.2.0.0/16", "192.0.2.1", time.Hour),
		static("10.3.0.0/16", "192.0.2.2"),
		negative("10.4.0.0/16", lisp.ActionNativelyForward, time.Minute),
		in7,
	)
	c.SetReachable(loc("192.0.2.1"), false)
	s := c.Stats()
	assert.Equal(t, 5, s.Entries)
	assert.Equal(t, 1, s.Instances)
	assert.Equal(t, 3, s.Sets)
	assert.Equal(t, 2, s.Locators)
	assert.Equal(t, uint64(5), s.Changes[mapcache.ReasonAdded])
	assert.Equal(t, uint64(1), s.Changes[mapcache.ReasonLocatorDown])

	require.NoError(t, c.Insert(t0.Add(time.Second), positive("10.5.0.0/16", "192.0.2.1", time.Hour)))
	assert.Equal(t, uint64(1), c.Stats().Changes[mapcache.ReasonEvicted])
	full := newCache(t, mapcache.Config{MaxEntries: 1}, static("10.3.0.0/16", "192.0.2.2"))
	require.ErrorIs(t, full.Insert(t0, in7), mapcache.ErrFull)
	assert.Equal(t, uint64(1), full.Stats().Full)
}

func TestWithin(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{},
		positive("10.0.0.0/8", "192.0.2.1", time.Hour),
		positive("10.1.2.0/24", "192.0.2.1", time.Hour),
		positive("10.1.0.0/16", "192.0.2.1", time.Hour),
		positive("11.0.0.0/8", "192.0.2.1", time.Hour),
	)
	list := func(k mapcache.Key) (out []string) {
		for e := range c.Within(k) {
			out = append(out, e.String())
		}
		return out
	}
	assert.Equal(t, []string{"10.1.0.0/16", "10.1.2.0/24"}, list(key("10.1.0.0/16")))
	assert.Equal(t, []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "11.0.0.0/8"}, list(key("0.0.0.0/0")))
	assert.Empty(t, list(mapcache.MakeKey(7, prefix("0.0.0.0/0"))))
	for range c.Within(key("0.0.0.0/0")) {
		break
	}
	for range c.All() {
		break
	}
	for range c.Locators() {
		break
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "send-request", mapcache.SendRequest.String())
	assert.Equal(t, "verdict(99)", mapcache.Verdict(99).String())
	assert.Equal(t, "replaced", mapcache.ReasonReplaced.String())
	assert.Equal(t, "reason(99)", mapcache.Reason(99).String())
	assert.Equal(t, "echo-nonce", mapcache.CauseEchoNonce.String())
	assert.Equal(t, "cause(99)", mapcache.Cause(99).String())
	assert.Equal(t, "origin(99)", mapcache.Origin(99).String())
	assert.Equal(t, "[7]10.0.0.0/8", mapcache.MakeKey(7, prefix("10.1.2.3/8")).String())
	assert.Equal(t, mapcache.Key{IID: 3}, mapcache.MakeKey(3, mapcache.Key{}.Prefix))
	assert.Equal(t, key("10.1.2.3/32"), mapcache.HostKey(0, addr("::ffff:10.1.2.3")))
	assert.Equal(t, prefix("::ffff:0:0/90").Masked(), mapcache.MakeKey(0, prefix("::ffff:0:0/90")).Prefix)
}
