package mapcache_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

func TestFormats(t *testing.T) {
	t.Parallel()
	tests := []struct {
		format  mapcache.Format
		name    string
		port    uint16
		locator string
	}{
		{mapcache.FormatLISP, "lisp", 4341, "192.0.2.1"},
		{mapcache.FormatGPE, "lisp-gpe", 4341, "192.0.2.1(lisp-gpe)"},
		{mapcache.FormatVXLANGPE, "vxlan-gpe", 4790, "192.0.2.1(vxlan-gpe)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.name, tt.format.String())
			assert.Equal(t, tt.port, tt.format.Port())
			b, err := json.Marshal(tt.format)
			require.NoError(t, err)
			assert.JSONEq(t, `"`+tt.name+`"`, string(b))
			var back mapcache.Format
			require.NoError(t, json.Unmarshal(b, &back))
			assert.Equal(t, tt.format, back)

			m := positive("10.2.0.0/16", "192.0.2.1", time.Hour)
			m.RLOCs[0].Port, m.RLOCs[0].Format = 0, tt.format
			c := newCache(t, mapcache.Config{}, m)
			c.Publish()
			d := c.View().Forward(0, addr("10.2.0.1"), 0)
			assert.Equal(t, mapcache.Locator{Addr: addr("192.0.2.1"), Port: tt.port, Format: tt.format}, d.Locator)
			assert.Equal(t, tt.locator, d.Locator.String())
			d.Locator.Port, d.Locator.IfIndex = 5000, 3
			assert.Contains(t, d.Locator.String(), "192.0.2.1:5000%3")
		})
	}
	bad := mapcache.Format(9)
	assert.Equal(t, "format(9)", bad.String())
	_, err := bad.MarshalText()
	require.ErrorIs(t, err, mapcache.ErrInvalid)
	require.ErrorIs(t, bad.UnmarshalText([]byte("LISP")), mapcache.ErrInvalid)
	m := positive("10.2.0.0/16", "192.0.2.1", time.Hour)
	m.RLOCs[0].Format = bad
	require.ErrorIs(t, mapcache.New(mapcache.Config{}).Insert(t0, m), mapcache.ErrInvalid)
}

// Formats are locators of their own: one may be down while the other is used.
func TestFormatsHaveTheirOwnReachability(t *testing.T) {
	t.Parallel()
	m := positive("10.2.0.0/16", "192.0.2.1", time.Hour)
	m.RLOCs = append(m.RLOCs, m.RLOCs[0])
	m.RLOCs[1].Format, m.RLOCs[1].Priority = mapcache.FormatGPE, 2
	c := newCache(t, mapcache.Config{}, m)
	assert.Equal(t, "192.0.2.1", via(c, "10.2.0.1"))
	require.True(t, c.SetDown(m.RLOCs[0].Locator, mapcache.CauseICMP, true))
	assert.Equal(t, "192.0.2.1(lisp-gpe)", via(c, "10.2.0.1"))
}

// What a Map-Notify publishes is as good as a Map-Reply: it expires, is refreshed,
// heeds an SMR, bounds what covers it, and survives a restart.
func TestPublishedMappings(t *testing.T) {
	t.Parallel()
	m := positive("10.2.0.0/16", "192.0.2.1", time.Hour)
	m.Origin = mapcache.OriginNotify
	c := newCache(t, mapcache.Config{}, positive("10.0.0.0/8", "192.0.2.9", 24*time.Hour), m)
	e, ok := c.Get(key("10.2.0.0/16"))
	require.True(t, ok)
	assert.Equal(t, "map-notify", e.Origin.String())
	covering, _ := c.Get(key("10.0.0.0/8"))
	assert.Equal(t, e.Expires, covering.Expires) // RFC 9301-5.5-4
	assert.True(t, c.MarkSMR(t0, key("10.2.0.0/16")))
	assert.Equal(t, []string{"10.2.0.0/16"}, advance(c, t0))
	to := mapcache.New(mapcache.Config{})
	for _, s := range saved(t, c, t0) {
		_, err := to.Import(t0, s)
		require.NoError(t, err)
	}
	e, ok = to.Get(key("10.2.0.0/16"))
	require.True(t, ok)
	assert.Equal(t, mapcache.OriginNotify, e.Origin)
	advance(c, t0.Add(time.Hour))
	assert.Zero(t, c.Len())
}
