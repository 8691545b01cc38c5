package multihome

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var t0 = time.Unix(1_700_000_000, 0)

// one is a host with a working uplink eth0 (index 2), a loopback and lmn0.
func one() Snapshot {
	return Snapshot{
		Links: []Link{
			{Index: 1, Name: "lo", Up: true, Running: true, Loopback: true},
			{Index: 2, Name: "eth0", Up: true, Running: true},
			{Index: 9, Name: "lmn0", Up: true, Running: true},
		},
		Addrs: []Addr{
			{IfIndex: 1, Addr: addr("127.0.0.1"), Prefix: 8},
			{IfIndex: 2, Addr: addr("198.51.100.1"), Prefix: 24},
			{IfIndex: 2, Addr: addr("fe80::1"), Prefix: 64},
			{IfIndex: 2, Addr: addr("2001:db8::1"), Prefix: 64},
			{IfIndex: 9, Addr: addr("192.0.2.1"), Prefix: 32},
		},
		Routes: []Route{
			{IfIndex: 2, Gateway: addr("198.51.100.254"), Metric: 100},
			{IfIndex: 2, IPv6: true, Gateway: addr("fe80::ff"), Metric: 1024},
		},
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func newState(t *testing.T, cfg Config) *State {
	t.Helper()
	cfg.Exclude = append(cfg.Exclude, "lmn0")
	s, err := New(cfg)
	require.NoError(t, err)
	return s
}

func next(t *testing.T, s *State) Change {
	t.Helper()
	c, ok := s.Next()
	require.True(t, ok, "a change")
	return c
}

func none(t *testing.T, s *State) {
	t.Helper()
	c, ok := s.Next()
	require.False(t, ok, "%+v", c)
}

func TestFirstSnapshotIsToldAtOnce(t *testing.T) {
	s := newState(t, Config{})
	s.Handle(t0, one())
	c := next(t, s)
	require.Len(t, c.Interfaces, 1)
	i := c.Interfaces[0]
	assert.Equal(t, "eth0", i.Name)
	assert.Equal(t, []netip.Addr{addr("198.51.100.1")}, i.IPv4)
	assert.Equal(t, []netip.Addr{addr("2001:db8::1")}, i.IPv6, "no link-local one")
	assert.Equal(t, Usable, i.Usable(false))
	assert.Equal(t, Usable, i.Usable(true))
	assert.Equal(t, addr("198.51.100.254"), i.Default4.Gateway)
	assert.Zero(t, s.Deadline())

	empty := newState(t, Config{})
	empty.Handle(t0, Snapshot{})
	assert.Empty(t, next(t, empty).Interfaces)
}

func TestUsable(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Snapshot)
		v4, v6 Reason
	}{
		{"all there", func(*Snapshot) {}, Usable, Usable},
		{"set down", func(s *Snapshot) { s.Links[1].Up = false }, LinkDown, LinkDown},
		{"no carrier", func(s *Snapshot) { s.Links[1].Running = false }, LinkDown, LinkDown},
		{"no IPv4 default route", func(s *Snapshot) { s.Routes = s.Routes[1:] }, NoDefaultRoute, Usable},
		{"no IPv6 default route", func(s *Snapshot) { s.Routes = s.Routes[:1] }, Usable, NoDefaultRoute},
		{"any metric counts", func(s *Snapshot) { s.Routes[0].Metric = 1 << 30 }, Usable, Usable},
		{"default route of another interface", func(s *Snapshot) { s.Routes[0].IfIndex = 3 }, NoDefaultRoute, Usable},
		{"address gone", func(s *Snapshot) { s.Addrs[1].IfIndex = 7 }, NoAddress, Usable},
		{"IPv6 address tentative", func(s *Snapshot) { s.Addrs[3].Tentative = true }, Usable, NoAddress},
		{"deprecated is better than none", func(s *Snapshot) { s.Addrs[3].Deprecated = true }, Usable, Usable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newState(t, Config{})
			snap := one()
			c.change(&snap)
			s.Handle(t0, snap)
			i := next(t, s).Interfaces[0]
			assert.Equal(t, c.v4, i.Usable(false), "IPv4")
			assert.Equal(t, c.v6, i.Usable(true), "IPv6")
		})
	}
}

func TestOrderOfAddresses(t *testing.T) {
	snap := one()
	snap.Addrs = []Addr{
		{IfIndex: 2, Addr: addr("2001:db8::d"), Deprecated: true},
		{IfIndex: 2, Addr: addr("fd00::1")},
		{IfIndex: 2, Addr: addr("2001:db8::7"), Temporary: true},
		{IfIndex: 2, Addr: addr("2001:db8::1")},
		{IfIndex: 2, Addr: addr("2001:db8::2")},
		{IfIndex: 2, Addr: addr("2001:db8::bad")},
	}
	reject := func(a netip.Addr) bool { return a == addr("2001:db8::bad") }
	s := newState(t, Config{Reject: reject})
	s.Handle(t0, snap)
	assert.Equal(t, []netip.Addr{
		addr("2001:db8::1"), addr("2001:db8::2"), addr("2001:db8::7"), addr("fd00::1"), addr("2001:db8::d"),
	}, next(t, s).Interfaces[0].IPv6)

	s = newState(t, Config{Reject: reject, SiteScope: true})
	s.Handle(t0, snap)
	assert.Equal(t, addr("fd00::1"), next(t, s).Interfaces[0].IPv6[0])
}

// What one cause changes in several steps is told once.
func TestSettle(t *testing.T) {
	s := newState(t, Config{})
	s.Handle(t0, one())
	next(t, s)

	snap := one()
	snap.Addrs = snap.Addrs[:2]
	s.Handle(t0.Add(time.Second), snap)
	none(t, s)
	due := t0.Add(time.Second + DefaultSettle)
	require.Equal(t, due, s.Deadline())
	snap.Routes = nil
	s.Handle(due.Add(-time.Millisecond), snap)
	none(t, s)
	require.Equal(t, due, s.Deadline(), "the wait does not begin again")
	s.Advance(due)
	i := next(t, s).Interfaces[0]
	assert.Equal(t, NoAddress, i.Usable(true))
	assert.Equal(t, NoDefaultRoute, i.Usable(false))
	none(t, s)
	assert.Zero(t, s.Deadline())
}

// That a link is lost is told at once, whatever else was to wait; that it is back,
// and what else its loss changes, is not.
func TestLostLinkIsToldAtOnce(t *testing.T) {
	s := newState(t, Config{})
	s.Handle(t0, one())
	next(t, s)
	snap := one()
	snap.Links[1].Running = false
	s.Handle(t0, snap)
	assert.Equal(t, LinkDown, next(t, s).Interfaces[0].Usable(false))
	snap.Routes = nil
	s.Handle(t0, snap)
	none(t, s)
	s.Advance(t0.Add(DefaultSettle))
	assert.Nil(t, next(t, s).Interfaces[0].Default4)

	back := t0.Add(2 * time.Second)
	s.Handle(back, one())
	none(t, s)
	assert.Equal(t, back.Add(DefaultSettle), s.Deadline())
	s.Handle(back.Add(DefaultSettle-time.Millisecond), snap)
	none(t, s)
	assert.Zero(t, s.Deadline(), "as it was told")
	s.Handle(back, one())
	s.Advance(s.Deadline())
	next(t, s)
	snap = one()
	snap.Routes = snap.Routes[1:]
	s.Handle(back, snap)
	none(t, s)
	snap.Links[1].Up = false
	s.Handle(back.Add(time.Millisecond), snap)
	assert.Equal(t, LinkDown, next(t, s).Interfaces[0].Usable(false))
	none(t, s)
	assert.Zero(t, s.Deadline(), "all is told")
	s.Handle(back, Snapshot{})
	none(t, s)
	assert.NotZero(t, s.Deadline(), "the link was down before")
}

// What is back before it was told is not told.
func TestShorterThanSettle(t *testing.T) {
	s := newState(t, Config{})
	s.Handle(t0, one())
	next(t, s)
	snap := one()
	snap.Routes = nil
	s.Handle(t0.Add(time.Second), snap)
	assert.NotZero(t, s.Deadline())
	s.Handle(t0.Add(time.Second+time.Millisecond), one())
	assert.Zero(t, s.Deadline())
	s.Advance(t0.Add(time.Minute))
	none(t, s)
}

func TestLostIsToldOnce(t *testing.T) {
	s := newState(t, Config{Settle: -1})
	s.Handle(t0, one())
	next(t, s)
	snap := one()
	snap.Lost = true
	s.Handle(t0, snap)
	assert.True(t, next(t, s).Lost)
	s.Handle(t0, one())
	none(t, s)

	// A loss stays to be told although the Snapshot after it shows nothing new.
	s = newState(t, Config{})
	s.Handle(t0, one())
	next(t, s)
	s.Handle(t0, snap)
	s.Handle(t0, one())
	s.Advance(s.Deadline())
	assert.True(t, next(t, s).Lost)
}

func TestPatterns(t *testing.T) {
	snap := one()
	snap.Links = append(snap.Links, Link{Index: 3, Name: "wwan0"}, Link{Index: 4, Name: "docker0"})
	names := func(cfg Config) (names []string) {
		s := newState(t, cfg)
		s.Handle(t0, snap)
		for _, i := range next(t, s).Interfaces {
			names = append(names, i.Name)
		}
		return names
	}
	assert.Equal(t, []string{"eth0", "wwan0", "docker0"}, names(Config{}))
	assert.Equal(t, []string{"wwan0"}, names(Config{Interfaces: []string{"wwan*", "usb0"}}))
	assert.Equal(t, []string{"eth0", "wwan0"}, names(Config{Exclude: []string{"docker*"}}))

	_, err := New(Config{Interfaces: []string{"eth["}})
	require.ErrorIs(t, err, ErrConfig)
	assert.Contains(t, err.Error(), `"eth["`)
}

// An interface that is configured and comes later is told when it does.
func TestLaterInterface(t *testing.T) {
	s := newState(t, Config{Interfaces: []string{"eth0", "wwan*"}, Settle: -1})
	s.Handle(t0, one())
	require.Len(t, next(t, s).Interfaces, 1)
	snap := one()
	snap.Links = append(snap.Links, Link{Index: 12, Name: "wwan0", Up: true, Running: true})
	snap.Addrs = append(snap.Addrs, Addr{IfIndex: 12, Addr: addr("203.0.113.7"), Prefix: 24})
	snap.Routes = append(snap.Routes, Route{IfIndex: 12, Metric: 700}, Route{IfIndex: 12, Metric: 50, Gateway: addr("203.0.113.1")})
	s.Handle(t0, snap)
	c := next(t, s)
	require.Len(t, c.Interfaces, 2)
	assert.Equal(t, Usable, c.Interfaces[1].Usable(false))
	assert.Equal(t, 50, c.Interfaces[1].Default4.Metric, "the best of several")
	assert.Equal(t, NoAddress, c.Interfaces[1].Usable(true))
}

// TestAgain: who could not do what a change asked for is told of it once more.
func TestAgain(t *testing.T) {
	s := newState(t, Config{Settle: 10 * time.Millisecond})
	s.Handle(t0, one())
	first := next(t, s)
	require.False(t, first.Lost)
	s.Again(t0.Add(time.Second))
	s.Again(t0.Add(2 * time.Second))
	assert.Equal(t, t0.Add(time.Second), s.Deadline())
	// A change meanwhile is told as ever, and is no second try.
	snap := one()
	snap.Addrs = snap.Addrs[:1]
	s.Handle(t0.Add(100*time.Millisecond), snap)
	assert.Equal(t, t0.Add(110*time.Millisecond), s.Deadline())
	s.Advance(t0.Add(110 * time.Millisecond))
	c := next(t, s)
	assert.Empty(t, c.Interfaces[0].IPv4)
	assert.False(t, c.Lost)
	assert.Equal(t, t0.Add(time.Second), s.Deadline())
	s.Advance(t0.Add(999 * time.Millisecond))
	none(t, s)
	s.Advance(t0.Add(time.Second))
	c = next(t, s)
	assert.True(t, c.Lost)
	assert.Empty(t, c.Interfaces[0].IPv4)
	assert.Zero(t, s.Deadline())
	// A loss that is told is a second try too.
	s.Again(t0.Add(5 * time.Second))
	snap.Lost = true
	s.Handle(t0.Add(2*time.Second), snap)
	s.Advance(t0.Add(3 * time.Second))
	assert.True(t, next(t, s).Lost)
	assert.Zero(t, s.Deadline())
}
