package netsim

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func addr(s string) netip.Addr   { return netip.MustParseAddr(s) }
func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// arrival is a datagram that a testCore got.
type arrival struct {
	at   time.Duration
	d    lisp.Datagram
	text string
}

// testCore notes what arrives, answers if told to, and sends on a timer.
type testCore struct {
	echo    bool
	refuse  bool
	got     []arrival
	out     []lisp.Datagram
	every   time.Duration
	next    time.Time
	message func(i int) lisp.Datagram
	sent    int
}

func (c *testCore) Handle(now time.Time, d lisp.Datagram) bool {
	if c.refuse {
		return false
	}
	text := string(d.Bytes)
	d.Bytes = nil
	c.got = append(c.got, arrival{now.Sub(start), d, text})
	if c.echo && !strings.HasPrefix(text, "re ") {
		c.out = append(c.out, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: []byte("re " + text)})
	}
	return true
}

func (c *testCore) Advance(now time.Time) {
	for c.every > 0 && !c.next.After(now) {
		c.out = append(c.out, c.message(c.sent))
		c.sent++
		c.next = c.next.Add(c.every)
	}
}

func (c *testCore) Deadline() time.Time { return c.next }

func (c *testCore) Next() (lisp.Datagram, bool) {
	if len(c.out) == 0 {
		return lisp.Datagram{}, false
	}
	d := c.out[0]
	c.out = c.out[1:]
	return d, true
}

func (c *testCore) texts() []string {
	var s []string
	for _, a := range c.got {
		s = append(s, a.text)
	}
	return s
}

// host adds a node with one interface and a testCore.
func host(n *Network, name string, s *Segment, l Link, addrs ...string) (*Node, *Interface, *testCore) {
	nd := n.AddNode(name)
	var as []netip.Addr
	for _, a := range addrs {
		as = append(as, addr(a))
	}
	i := nd.AddInterface(s, l, as...)
	c := new(testCore)
	nd.Attach(c)
	return nd, i, c
}

func message(to, text string) lisp.Datagram {
	return lisp.Datagram{Remote: ap(to), Bytes: []byte(text)}
}

func TestLatencyAndAddresses(t *testing.T) {
	n := New(Config{Start: start})
	a, _, ca := host(n, "a", n.Internet(), Link{Latency: 10 * time.Millisecond}, "192.0.2.1", "2001:db8::1")
	_, _, cb := host(n, "b", n.Internet(), Link{Latency: 5 * time.Millisecond}, "192.0.2.2", "2001:db8::2")
	cb.echo = true
	a.Send(message("192.0.2.2:4342", "four"))
	a.Send(lisp.Datagram{Local: ap("[2001:db8::1]:1000"), Remote: ap("[2001:db8::2]:2000"), Bytes: []byte("six")})
	a.Send(lisp.Datagram{Local: ap("192.0.2.1:0"), Remote: ap("[::ffff:192.0.2.2]:4342"), Bytes: []byte("mapped")})
	n.Run(time.Second)
	require.Equal(t, []string{"four", "six", "mapped"}, cb.texts())
	assert.Equal(t, 15*time.Millisecond, cb.got[0].at)
	assert.Equal(t, ap("192.0.2.1:4342"), cb.got[0].d.Remote)
	assert.Equal(t, ap("192.0.2.2:4342"), cb.got[0].d.Local)
	assert.Equal(t, 1, cb.got[0].d.IfIndex)
	assert.Equal(t, ap("[2001:db8::1]:1000"), cb.got[1].d.Remote)
	require.Equal(t, []string{"re four", "re six", "re mapped"}, ca.texts())
	assert.Equal(t, 30*time.Millisecond, ca.got[0].at)
	assert.Equal(t, ap("[2001:db8::2]:2000"), ca.got[1].d.Remote)
	assert.Equal(t, start.Add(time.Second), n.Now())
	assert.True(t, n.Idle())
	assert.EqualValues(t, 6, n.Count(Sent))
	assert.EqualValues(t, 6, n.Count(Delivered))
}

func TestTimersAndRunUntil(t *testing.T) {
	n := New(Config{Start: start})
	a, _, ca := host(n, "a", n.Internet(), Link{}, "192.0.2.1")
	_, _, cb := host(n, "b", n.Internet(), Link{Latency: time.Millisecond}, "192.0.2.2")
	ca.message = func(i int) lisp.Datagram { return message("192.0.2.2:4342", fmt.Sprint(i)) }
	steps := 0
	a.AfterStep(func(time.Time) { steps++ })
	a.Step(func(now time.Time) { ca.every, ca.next = 10*time.Second, now.Add(10*time.Second) })
	assert.True(t, n.RunUntil(time.Hour, func() bool { return len(cb.got) == 3 }))
	assert.Equal(t, 30*time.Second+time.Millisecond, cb.got[2].at)
	assert.Equal(t, start.Add(30*time.Second+time.Millisecond), n.Now())
	assert.False(t, n.RunUntil(time.Second, func() bool { return len(cb.got) == 4 }))
	assert.Equal(t, 4, steps)
	called := time.Time{}
	n.After(time.Minute, func() { called = n.Now() })
	n.Run(2 * time.Minute)
	assert.Equal(t, start.Add(91*time.Second+time.Millisecond), called)
	assert.Len(t, cb.got, 15)
}

// flood sends n numbered datagrams from a to b, one a millisecond.
func flood(n *Network, a *Node, to string, count int) {
	for i := range count {
		n.After(time.Duration(i)*time.Millisecond, func() { a.Send(message(to, fmt.Sprintf("%05d", i))) })
	}
	n.Run(time.Duration(count)*time.Millisecond + time.Minute)
}

func TestLossDuplicationReordering(t *testing.T) {
	const count = 10_000
	for name, tc := range map[string]struct {
		link  Link
		check func(t *testing.T, n *Network, got []string)
	}{
		"perfect": {Link{}, func(t *testing.T, _ *Network, got []string) {
			require.Len(t, got, count)
			assert.IsIncreasing(t, got)
		}},
		"loss": {Link{Loss: 0.3}, func(t *testing.T, n *Network, got []string) {
			assert.InDelta(t, 0.7*count, len(got), 300)
			assert.EqualValues(t, count-len(got), n.Count(Lost))
			assert.IsIncreasing(t, got)
		}},
		"duplication": {Link{Duplicate: 0.2}, func(t *testing.T, n *Network, got []string) {
			assert.InDelta(t, 1.2*count, len(got), 300)
			assert.EqualValues(t, len(got)-count, n.Count(Duplicated))
			assert.IsNonDecreasing(t, got)
		}},
		"reordering": {Link{Reorder: 0.1}, func(t *testing.T, _ *Network, got []string) {
			assert.Len(t, got, count)
			assert.InDelta(t, 0.1*count, late(got), 200)
		}},
		"reordering by less than the spacing": {Link{Reorder: 0.1, ReorderBy: 900 * time.Microsecond}, func(t *testing.T, _ *Network, got []string) {
			require.Len(t, got, count)
			assert.IsIncreasing(t, got)
		}},
		"jitter": {Link{Latency: time.Millisecond, Jitter: 5 * time.Millisecond}, func(t *testing.T, _ *Network, got []string) {
			assert.Len(t, got, count)
			assert.Positive(t, late(got))
		}},
		"down": {Link{Down: true}, func(t *testing.T, n *Network, got []string) {
			assert.Empty(t, got)
			assert.EqualValues(t, count, n.Count(LinkDown))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := New(Config{Start: start, Seed: 1})
			a, _, _ := host(n, "a", n.Internet(), Link{}, "192.0.2.1")
			_, _, cb := host(n, "b", n.Internet(), tc.link, "192.0.2.2")
			flood(n, a, "192.0.2.2:4342", count)
			tc.check(t, n, cb.texts())
		})
	}
}

// late is how many are behind one with a greater number.
func late(s []string) int {
	late, top := 0, ""
	for _, x := range s {
		if x < top {
			late++
		} else {
			top = x
		}
	}
	return late
}

func TestMTU(t *testing.T) {
	n := New(Config{Start: start})
	a, _, _ := host(n, "a", n.Internet(), Link{}, "192.0.2.1", "2001:db8::1")
	_, _, cb := host(n, "b", n.Internet(), Link{MTU: 1280}, "192.0.2.2", "2001:db8::2")
	for to, most := range map[string]int{"192.0.2.2:1": 1280 - 28, "[2001:db8::2]:1": 1280 - 48} {
		a.Send(lisp.Datagram{Remote: ap(to), Bytes: make([]byte, most)})
		a.Send(lisp.Datagram{Remote: ap(to), Bytes: make([]byte, most+1)})
	}
	n.Run(time.Second)
	assert.Len(t, cb.got, 2)
	assert.EqualValues(t, 2, n.Count(TooBig))
}

func TestInterfaces(t *testing.T) {
	n := New(Config{Start: start})
	a, first, ca := host(n, "a", n.Internet(), Link{}, "192.0.2.1")
	second := a.AddInterface(n.Internet(), Link{}, addr("192.0.2.3"))
	_, _, cb := host(n, "b", n.Internet(), Link{}, "192.0.2.2")
	from := func(d lisp.Datagram) string {
		cb.got = nil
		a.Send(d)
		n.Run(time.Second)
		if len(cb.got) == 0 {
			return ""
		}
		return cb.got[0].d.Remote.Addr().String()
	}
	plain := message("192.0.2.2:1", "x")
	byIndex, byAddr, stranger := plain, plain, plain
	byIndex.IfIndex = 2
	byAddr.Local = ap("192.0.2.3:7")
	stranger.Local = ap("192.0.2.9:7")
	assert.Equal(t, 2, second.Index())
	assert.Equal(t, "192.0.2.1", from(plain))
	assert.Equal(t, "192.0.2.3", from(byIndex))
	assert.Equal(t, "192.0.2.3", from(byAddr))
	assert.Equal(t, "", from(stranger), "not an address of the node")
	first.SetDown(true)
	assert.Equal(t, "192.0.2.3", from(plain), "the first that is up")
	byFirst := plain
	byFirst.IfIndex = 1
	assert.Equal(t, "", from(byFirst))
	first.SetDown(false)
	first.SetAddrs(addr("192.0.2.11"))
	assert.Equal(t, []netip.Addr{addr("192.0.2.11")}, first.Addrs())
	assert.Equal(t, "192.0.2.11", from(plain))
	assert.Equal(t, "", from(message("[2001:db8::2]:1", "no address of the family")))
	assert.Equal(t, "", from(message("192.0.2.77:1", "nobody")))
	assert.Equal(t, "", from(lisp.Datagram{}))
	// A datagram on its way to an address that goes away is lost.
	second.SetLink(Link{Latency: time.Second})
	assert.Equal(t, time.Second, second.Link().Latency)
	before := n.Count(NoRoute)
	ca.got = nil
	cbNode := n.nodes[1]
	cbNode.Send(message("192.0.2.3:1", "late"))
	n.Run(time.Millisecond)
	second.SetAddrs()
	n.Run(2 * time.Second)
	assert.Empty(t, ca.got)
	assert.Equal(t, before+1, n.Count(NoRoute))
	assert.Panics(t, func() { second.SetAddrs(addr("192.0.2.2")) })
	// To itself.
	a.Send(message("192.0.2.11:1", "self"))
	n.Run(time.Second)
	assert.Equal(t, []string{"self"}, ca.texts())
}

func TestCoresInOrder(t *testing.T) {
	n := New(Config{Start: start})
	a, _, first := host(n, "a", n.Internet(), Link{}, "192.0.2.1")
	second := new(testCore)
	a.Attach(second)
	first.refuse = true
	a.Send(message("192.0.2.1:1", "x"))
	n.Run(0)
	assert.Len(t, second.got, 1)
	second.refuse = true
	a.Send(message("192.0.2.1:1", "y"))
	n.Run(0)
	assert.EqualValues(t, 1, n.Count(Unclaimed))
	assert.Equal(t, "a", a.Name())
}

// TestSameSeedSameTrace with everything that draws random numbers at once.
func TestSameSeedSameTrace(t *testing.T) {
	run := func(seed uint64) (uint64, int) {
		records := 0
		n := New(Config{Start: start, Seed: seed, Trace: func(Record) { records++ }})
		bad := Link{Latency: 20 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.2, Duplicate: 0.1, Reorder: 0.1}
		nat := n.AddNAT("nat", n.Internet(), bad, addr("192.0.2.100"), NATConfig{Kind: Symmetric})
		for i := range 20 {
			s, a := n.Internet(), addr("192.0.2.1")
			if i%3 == 0 {
				s, a = nat.Inside(), addr("10.0.0.1")
			}
			for range i {
				a = a.Next()
			}
			_, _, c := host(n, fmt.Sprint(i), s, bad, a.String())
			c.echo = i%2 == 0
			c.every, c.next = time.Duration(10+i)*time.Millisecond, start
			c.message = func(k int) lisp.Datagram {
				if k%5 == 0 {
					return message("192.0.2.100:20003", "uninvited")
				}
				return message(fmt.Sprintf("192.0.2.%d:4342", 1+(k*7+i)%20), fmt.Sprintf("%d %d %d", i, k, n.Rand().IntN(100)))
			}
			n.nodes[i].settle()
		}
		n.Run(time.Second)
		assert.Positive(t, n.Count(Lost))
		assert.Positive(t, n.Count(NATBlocked))
		return n.TraceHash(), records
	}
	h1, r1 := run(1)
	h2, r2 := run(1)
	h3, _ := run(2)
	assert.Equal(t, h1, h2)
	assert.Equal(t, r1, r2)
	assert.NotEqual(t, h1, h3)
	assert.Greater(t, r1, 1000)
}

func TestTraceIsReadable(t *testing.T) {
	var lines []string
	n := New(Config{Start: start, Trace: func(r Record) { lines = append(lines, r.String()) }})
	a, _, _ := host(n, "a", n.Internet(), Link{}, "192.0.2.1")
	a.Send(message("192.0.2.2:4342", "four"))
	n.Run(time.Second)
	assert.Equal(t, []string{
		"12:00:00.000 a: sent 192.0.2.1:4342 > 192.0.2.2:4342 4 octets",
		"12:00:00.000 internet: no route 192.0.2.1:4342 > 192.0.2.2:4342 4 octets",
	}, lines)
	assert.Equal(t, "kind 99", Kind(99).String())
	assert.Zero(t, n.Count(99))
}

func TestCoreThatAsksForThePastIsNoticed(t *testing.T) {
	n := New(Config{Start: start})
	a := n.AddNode("a")
	a.Attach(stuckCore{})
	assert.Panics(t, func() { n.Run(time.Second) })
}

type stuckCore struct{}

func (stuckCore) Handle(time.Time, lisp.Datagram) bool { return false }
func (stuckCore) Advance(time.Time)                    {}
func (stuckCore) Deadline() time.Time                  { return start.Add(-time.Hour) }
func (stuckCore) Next() (lisp.Datagram, bool)          { return lisp.Datagram{}, false }

func BenchmarkNetwork(b *testing.B) {
	n := New(Config{Start: start})
	a, _, ca := host(n, "a", n.Internet(), Link{Latency: time.Millisecond, Jitter: time.Millisecond, Loss: 0.01}, "192.0.2.1")
	_, _, cb := host(n, "b", n.Internet(), Link{Latency: time.Millisecond}, "192.0.2.2")
	d := message("192.0.2.2:4342", "some 60 octets of a control message, for something to hash..")
	b.ReportAllocs()
	for b.Loop() {
		a.Send(d)
		n.Run(time.Millisecond)
		cb.got = cb.got[:0]
	}
	_ = ca
}
