package mapcache_test

import (
	"encoding/json"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func mac(t testing.TB, s string) mapcache.MAC {
	t.Helper()
	hw, err := net.ParseMAC(s)
	require.NoError(t, err)
	return mapcache.MAC(hw)
}

// macMapping is a learned mapping of a MAC to one locator.
func macMapping(t testing.TB, iid uint32, m, rlocAddr string) mapcache.Mapping {
	t.Helper()
	out := positive("10.0.0.0/8", rlocAddr, time.Hour)
	out.Key = mapcache.MACKey(iid, mac(t, m))
	return out
}

func TestMACs(t *testing.T) {
	t.Parallel()
	neg := negative("10.0.0.0/8", lisp.ActionDropPolicyDenied, time.Hour)
	neg.Key = mapcache.MACKey(7, mac(t, "02:00:00:00:00:09"))
	c := newCache(t, mapcache.Config{},
		positive("0.0.0.0/0", "192.0.2.9", time.Hour), positive("::/0", "192.0.2.9", time.Hour),
		macMapping(t, 0, "02:00:00:00:00:01", "192.0.2.1"),
		macMapping(t, 7, "02:00:00:00:00:01", "192.0.2.2"),
		macMapping(t, 7, "02:00:00:00:00:02", "2001:db8::3"),
		macMapping(t, 0xffffff, "ff:ff:ff:ff:ff:ff", "192.0.2.4"),
		neg,
	)
	tests := []struct {
		iid       uint32
		dst, want string
	}{
		{0, "02:00:00:00:00:01", "192.0.2.1"},
		{7, "02:00:00:00:00:01", "192.0.2.2"},
		{7, "02:00:00:00:00:02", "2001:db8::3"},
		{7, "02:00:00:00:00:03", "miss"},
		{8, "02:00:00:00:00:01", "miss"},
		{7, "02:00:00:00:00:09", "drop"},
		{0xffffff, "ff:ff:ff:ff:ff:ff", "192.0.2.4"},
		{0x1ffffff, "ff:ff:ff:ff:ff:ff", "miss"}, // more than 24 bits
		{0, "00:00:00:00:00:00", "miss"},
	}
	for _, tt := range tests {
		d := c.View().ForwardMAC(tt.iid, mac(t, tt.dst), 5)
		got := d.Verdict.String()
		if d.Verdict == mapcache.Encapsulate {
			got = d.Locator.String()
		}
		assert.Equal(t, tt.want, got, "[%d]%s", tt.iid, tt.dst)
	}
	assert.Equal(t, "192.0.2.9", via(c, "10.1.1.1"), "addresses and MACs do not meet")
	d := c.View().ForwardMAC(7, mac(t, "02:00:00:00:00:01"), 5)
	e, ok := c.Get(mapcache.MACKey(7, mac(t, "02:00:00:00:00:01")))
	require.True(t, ok)
	assert.Equal(t, e.ID, d.EntryID)

	all := []string{
		"0.0.0.0/0", "::/0", "02:00:00:00:00:01", "[7]02:00:00:00:00:01", "[7]02:00:00:00:00:02", "[7]02:00:00:00:00:09",
		"[16777215]ff:ff:ff:ff:ff:ff",
	}
	assert.Equal(t, all, keys(c))
	for i, ch := range c.Changes() {
		assert.Contains(t, all, ch.Key.String(), i)
	}
	s := c.Stats()
	assert.Equal(t, 7, s.Entries)
	assert.Equal(t, 5, s.MACs)
	assert.Equal(t, 0, s.Instances)

	require.NoError(t, c.Insert(t0, macMapping(t, 7, "02:00:00:00:00:01", "192.0.2.7"))) // moves
	assert.Equal(t, "192.0.2.2", c.View().ForwardMAC(7, mac(t, "02:00:00:00:00:01"), 5).Locator.String(), "not published")
	c.Publish()
	assert.Equal(t, "192.0.2.7", c.View().ForwardMAC(7, mac(t, "02:00:00:00:00:01"), 5).Locator.String())
	assert.True(t, c.Remove(t0, mapcache.MACKey(7, mac(t, "02:00:00:00:00:01"))))
	assert.False(t, c.Remove(t0, mapcache.MACKey(7, mac(t, "02:00:00:00:00:01"))))
	assert.False(t, c.Remove(t0, mapcache.MACKey(1<<24, mac(t, "02:00:00:00:00:01"))))
	c.Publish()
	assert.Equal(t, mapcache.Decision{}, c.View().ForwardMAC(7, mac(t, "02:00:00:00:00:01"), 5))

	both := positive("10.1.0.0/16", "192.0.2.1", time.Hour)
	both.MAC = mac(t, "02:00:00:00:00:01")
	require.ErrorIs(t, c.Insert(t0, both), mapcache.ErrInvalid)
	_, ok = c.Get(both.Key)
	assert.False(t, ok)
}

// A MAC lives as an EID-Prefix does: refreshed if in use, gone at its end, marked
// by an SMR, evicted if idle, and saved.
func TestMACLifetime(t *testing.T) {
	t.Parallel()
	used, idle := mapcache.MACKey(7, mac(t, "02:00:00:00:00:01")), mapcache.MACKey(7, mac(t, "02:00:00:00:00:02"))
	fill := func(cfg mapcache.Config) *mapcache.Cache {
		return newCache(t, cfg, macMapping(t, 7, used.MAC.String(), "192.0.2.1"), macMapping(t, 7, idle.MAC.String(), "192.0.2.1"))
	}
	c := fill(mapcache.Config{})
	advance(c, t0.Add(58*time.Minute))
	c.View().ForwardMAC(7, used.MAC, 0)
	assert.Equal(t, []string{"[7]02:00:00:00:00:01"}, advance(c, t0.Add(time.Hour-1)))
	assert.True(t, c.MarkSMR(t0.Add(time.Hour-1), idle))
	assert.Equal(t, []string{"[7]02:00:00:00:00:02"}, advance(c, t0.Add(time.Hour-1)))
	list := saved(t, c, t0)
	advance(c, t0.Add(time.Hour))
	assert.Zero(t, c.Len())
	to := mapcache.New(mapcache.Config{})
	for _, s := range list {
		ok, err := to.Import(t0.Add(time.Minute), s)
		require.NoError(t, err)
		assert.True(t, ok)
	}
	assert.Equal(t, []string{used.String(), idle.String()}, keys(to))

	c = fill(mapcache.Config{MaxEntries: 2})
	c.Used(t0.Add(50*time.Minute), used)
	require.NoError(t, c.Insert(t0.Add(50*time.Minute), positive("10.1.0.0/16", "192.0.2.1", time.Hour)))
	assert.Equal(t, []string{"10.1.0.0/16", used.String()}, keys(c))
}

func TestWithinInstance(t *testing.T) {
	t.Parallel()
	in7 := positive("10.1.0.0/16", "192.0.2.1", time.Hour)
	in7.IID = 7
	c := newCache(t, mapcache.Config{},
		in7, positive("10.2.0.0/16", "192.0.2.1", time.Hour),
		macMapping(t, 0, "02:00:00:00:00:01", "192.0.2.1"), macMapping(t, 7, "02:00:00:00:00:02", "192.0.2.1"),
		macMapping(t, 8, "02:00:00:00:00:03", "192.0.2.1"),
	)
	for k, want := range map[mapcache.Key][]string{
		{}:       {"10.2.0.0/16", "02:00:00:00:00:01"},
		{IID: 7}: {"[7]10.1.0.0/16", "[7]02:00:00:00:00:02"},
		{IID: 8}: {"[8]02:00:00:00:00:03"},
		{IID: 9}: nil,
		mapcache.MACKey(7, mac(t, "02:00:00:00:00:02")): {"[7]02:00:00:00:00:02"},
	} {
		var got []string
		for e := range c.Within(k) {
			got = append(got, e.String())
		}
		assert.Equal(t, want, got, "%v", k)
	}
	for range c.Within(mapcache.Key{IID: 7}) {
		break
	}
}

func TestRecordKeys(t *testing.T) {
	t.Parallel()
	tests := []struct {
		eid     string // as lisp.ParseAddress reads it
		maskLen uint8
		want    string
	}{
		{"10.1.0.0", 16, "10.1.0.0/16"},
		{"10.1.2.3", 16, "10.1.0.0/16"},
		{"[7]2001:db8::", 32, "[7]2001:db8::/32"},
		{"02:00:00:00:00:01", 48, "02:00:00:00:00:01"},
		{"[7]02:00:00:00:00:01", 48, "[7]02:00:00:00:00:01"},
		{"[7]02:00:00:00:00:01", 0, "[7]02:00:00:00:00:01"},
		{"afi-16389:020000000001", 48, "02:00:00:00:00:01"},
		{"10.1.0.0", 33, ""},
		{"[16777216]10.1.0.0", 16, ""},
		{"[16777216]02:00:00:00:00:01", 48, ""},
		{"00:00:00:00:00:00", 48, ""},
		{`"a name"`, 0, ""},
		{`[7]"a name"`, 0, ""},
		{"none", 0, ""},
		{"afi-list(02:00:00:00:00:01)", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.eid, func(t *testing.T) {
			t.Parallel()
			a, err := lisp.ParseAddress(tt.eid)
			require.NoError(t, err)
			k, ok := mapcache.RecordKey(a, tt.maskLen)
			require.Equal(t, tt.want != "", ok)
			if !ok {
				return
			}
			assert.Equal(t, tt.want, k.String())
			back, maskLen := k.EID()
			again, ok := mapcache.RecordKey(back, maskLen)
			assert.True(t, ok)
			assert.Equal(t, k, again)
			if k.MAC != (mapcache.MAC{}) {
				assert.Equal(t, tt.want, back.String())
				assert.Equal(t, uint8(48), maskLen)
			}
		})
	}
	none, _ := mapcache.Key{}.EID()
	assert.True(t, none.IsZero())
	var m mapcache.MAC
	for _, bad := range []string{"", "02:00:00:00:00", "192.0.2.1", "00:00:00:00:00:00", "[7]02:00:00:00:00:01"} {
		require.ErrorIs(t, m.UnmarshalText([]byte(bad)), mapcache.ErrInvalid, bad)
	}
	b, err := json.Marshal([]mapcache.Key{mapcache.MACKey(7, mac(t, "02:00:00:00:00:01")), key("10.1.0.0/16")})
	require.NoError(t, err)
	assert.JSONEq(t, `[{"IID":7,"MAC":"02:00:00:00:00:01","Prefix":""},{"IID":0,"Prefix":"10.1.0.0/16"}]`, string(b))
	var ks []mapcache.Key
	require.NoError(t, json.Unmarshal(b, &ks))
	assert.True(t, slices.Contains(ks, key("10.1.0.0/16")))
	assert.Equal(t, "[7]02:00:00:00:00:01", ks[0].String())
}
