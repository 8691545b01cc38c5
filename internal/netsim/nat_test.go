package netsim

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestNATKinds: a host behind the NAT sends from one port to server:1; who can
// answer to the address that server:1 saw, and does another server see the same?
func TestNATKinds(t *testing.T) {
	for kind, want := range map[NATKind]struct {
		sameBinding bool     // seen by another server
		admitted    []string // of the strangers below
	}{
		FullCone:       {true, []string{"server:1", "server:2", "other:1"}},
		Restricted:     {true, []string{"server:1", "server:2"}},
		PortRestricted: {true, []string{"server:1"}},
		Symmetric:      {false, []string{"server:1"}},
	} {
		t.Run(kind.String(), func(t *testing.T) {
			n := New(Config{Start: start})
			nat := n.AddNAT("nat", n.Internet(), Link{Latency: time.Millisecond}, addr("192.0.2.100"), NATConfig{Kind: kind})
			inside, _, ci := host(n, "inside", nat.Inside(), Link{}, "10.0.0.1")
			server, _, cs := host(n, "server", n.Internet(), Link{}, "192.0.2.1")
			other, _, co := host(n, "other", n.Internet(), Link{}, "192.0.2.2")

			inside.Send(lisp.Datagram{Local: ap("10.0.0.1:4341"), Remote: ap("192.0.2.1:1"), Bytes: []byte("hello")})
			n.Run(time.Second)
			require.Len(t, cs.got, 1)
			public := cs.got[0].d.Remote
			assert.Equal(t, ap("192.0.2.100:20000"), public)
			assert.Equal(t, 1, nat.Bindings())

			other.Send(lisp.Datagram{Local: ap("192.0.2.2:1"), Remote: public, Bytes: []byte("other:1")})
			server.Send(lisp.Datagram{Local: ap("192.0.2.1:1"), Remote: public, Bytes: []byte("server:1")})
			server.Send(lisp.Datagram{Local: ap("192.0.2.1:2"), Remote: public, Bytes: []byte("server:2")})
			n.Run(time.Second)
			assert.ElementsMatch(t, want.admitted, ci.texts())
			assert.EqualValues(t, 3-len(want.admitted), n.Count(NATBlocked))
			for _, g := range ci.got {
				assert.Equal(t, ap("10.0.0.1:4341"), g.d.Local)
			}

			inside.Send(lisp.Datagram{Local: ap("10.0.0.1:4341"), Remote: ap("192.0.2.2:1"), Bytes: []byte("hello")})
			n.Run(time.Second)
			require.Len(t, co.got, 1)
			assert.Equal(t, want.sameBinding, co.got[0].d.Remote == public)

			nat.Flush()
			ci.got = nil
			server.Send(lisp.Datagram{Local: ap("192.0.2.1:1"), Remote: public, Bytes: []byte("server:1")})
			n.Run(time.Second)
			assert.Empty(t, ci.got)
		})
	}
	assert.Equal(t, "NAT kind 9", NATKind(9).String())
}

func TestNATBindingTimeout(t *testing.T) {
	for _, inbound := range []bool{false, true} {
		n := New(Config{Start: start})
		nat := n.AddNAT("nat", n.Internet(), Link{}, addr("192.0.2.100"),
			NATConfig{Kind: PortRestricted, Timeout: 30 * time.Second, InboundRefresh: inbound})
		inside, _, ci := host(n, "inside", nat.Inside(), Link{}, "10.0.0.1")
		server, _, cs := host(n, "server", n.Internet(), Link{}, "192.0.2.1")
		hello := message("192.0.2.1:4342", "hello")
		inside.Send(hello)
		n.Run(20 * time.Second)
		inside.Send(hello) // refreshes
		n.Run(29 * time.Second)
		public := cs.got[0].d.Remote
		assert.Equal(t, public, cs.got[1].d.Remote)
		back := lisp.Datagram{Local: ap("192.0.2.1:4342"), Remote: public, Bytes: []byte("back")}
		server.Send(back)
		n.Run(2 * time.Second)
		require.Len(t, ci.got, 1)
		// 31 s after the last datagram from inside, 2 s after the one from outside.
		assert.Equal(t, inbound, nat.Bindings() == 1)
		inside.Send(hello)
		n.Run(time.Second)
		require.Len(t, cs.got, 3)
		assert.Equal(t, inbound, public == cs.got[2].d.Remote, "a new binding has a new port")
	}
}

func TestNATPorts(t *testing.T) {
	n := New(Config{Start: start})
	nat := n.AddNAT("nat", n.Internet(), Link{}, addr("192.0.2.100"), NATConfig{KeepPort: true, FirstPort: 65534, Timeout: time.Minute})
	_, _, cs := host(n, "server", n.Internet(), Link{}, "192.0.2.1")
	var nodes []*Node
	for i := range 5 {
		nd, _, _ := host(n, fmt.Sprint(i), nat.Inside(), Link{}, fmt.Sprintf("10.0.0.%d", i+1))
		nodes = append(nodes, nd)
		nd.Send(message("192.0.2.1:4342", "hello"))
	}
	n.Run(time.Second)
	var ports []uint16
	for _, g := range cs.got {
		ports = append(ports, g.d.Remote.Port())
	}
	assert.Equal(t, []uint16{4342, 65534, 65535}, ports)
	assert.EqualValues(t, 2, n.Count(NATBlocked), "no port is left")
	n.Run(time.Hour)
	cs.got = nil
	nodes[4].Send(message("192.0.2.1:4342", "hello"))
	n.Run(time.Second)
	assert.Len(t, cs.got, 1, "expired bindings give their ports back")
	assert.Equal(t, 1, nat.Bindings())
}

func TestNATInNATAndRenumbering(t *testing.T) {
	n := New(Config{Start: start})
	outer := n.AddNAT("outer", n.Internet(), Link{Latency: time.Millisecond}, addr("192.0.2.100"), NATConfig{Kind: FullCone})
	inner := n.AddNAT("inner", outer.Inside(), Link{Latency: time.Millisecond}, addr("100.64.0.1"), NATConfig{Kind: FullCone})
	inside, iface, ci := host(n, "inside", inner.Inside(), Link{Latency: time.Millisecond}, "10.0.0.1")
	_, _, cs := host(n, "server", n.Internet(), Link{Latency: time.Millisecond}, "192.0.2.1")
	cs.echo = true
	hello := message("192.0.2.1:4342", "hello")
	inside.Send(hello)
	n.Run(time.Second)
	require.Len(t, ci.got, 1)
	assert.Equal(t, 8*time.Millisecond, ci.got[0].at)
	assert.Equal(t, addr("192.0.2.100"), cs.got[0].d.Remote.Addr())

	outer.Renumber(addr("192.0.2.101"))
	inside.Send(hello)
	n.Run(time.Second)
	assert.Equal(t, addr("192.0.2.101"), cs.got[1].d.Remote.Addr())
	outer.Outside().SetDown(true)
	inside.Send(hello)
	n.Run(time.Second)
	assert.Len(t, cs.got, 2)

	// The host moves out of the NATs.
	iface.Move(n.Internet(), addr("192.0.2.5"))
	inside.Send(hello)
	n.Run(time.Second)
	assert.Equal(t, ap("192.0.2.5:4342"), cs.got[2].d.Remote)

	// IPv6 doesn't get through an IPv4 NAT.
	iface.Move(inner.Inside(), addr("2001:db8::5"))
	inside.Send(message("[2001:db8::1]:4342", "six"))
	n.Run(time.Second)
	assert.EqualValues(t, 1, n.Count(NoRoute))
}

// TestNATHairpin: two hosts behind one NAT, by its public address.
func TestNATHairpin(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		n := New(Config{Start: start})
		nat := n.AddNAT("nat", n.Internet(), Link{Latency: time.Millisecond}, addr("192.0.2.100"), NATConfig{Hairpin: hairpin})
		a, _, ca := host(n, "a", nat.Inside(), Link{}, "10.0.0.1")
		b, _, cb := host(n, "b", nat.Inside(), Link{}, "10.0.0.2")
		a.Send(lisp.Datagram{Local: ap("10.0.0.1:4341"), Remote: ap("192.0.2.9:1"), Bytes: []byte("binding 20000")})
		b.Send(lisp.Datagram{Local: ap("10.0.0.2:4341"), Remote: ap("192.0.2.100:20000"), Bytes: []byte("hello")})
		n.Run(time.Second)
		if !hairpin {
			assert.Empty(t, ca.got)
			assert.EqualValues(t, 1, n.Count(NATBlocked))
			continue
		}
		require.Len(t, ca.got, 1)
		assert.Equal(t, ap("192.0.2.100:20001"), ca.got[0].d.Remote)
		a.Send(lisp.Datagram{Local: ap("10.0.0.1:4341"), Remote: ca.got[0].d.Remote, Bytes: []byte("answer")})
		n.Run(time.Second)
		assert.Equal(t, []string{"answer"}, cb.texts())
	}
}
