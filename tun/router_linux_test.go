package tun

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// forwardingState lists the settings that make a host a router, and what changes with
// them.
func forwardingState(t *testing.T, h *netlab.Host) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, h.Do(func() error {
		for _, glob := range []string{"ipv4/ip_forward", "ipv[46]/conf/*/forwarding", "ipv6/conf/*/accept_ra", "ipv4/conf/*/accept_redirects"} {
			files, err := filepath.Glob(filepath.Join(procNet, glob))
			require.NoError(t, err)
			for _, f := range files {
				b, err := os.ReadFile(f)
				require.NoError(t, err)
				all[strings.TrimPrefix(f, procNet+"/")] = strings.TrimSpace(string(b))
			}
		}
		return nil
	}))
	return all
}

func TestRouterForwards(t *testing.T) {
	n := newNetwork(t)
	n.node.Sysctl("net/ipv6/conf/eth0/accept_ra", "1")
	n.node.Sysctl("net/ipv4/conf/eth0/forwarding", "1") // an exception that must survive
	n.node.Sysctl("net/ipv4/conf/all/accept_redirects", "0")
	// A default route as a router advertisement makes it.
	n.node.MustRun("ip", "-6", "route", "add", "default", "via", "2001:db8:a::1", "dev", "eth0", "proto", "ra", "metric", "2000", "expires", "600")
	before := forwardingState(t, n.node)
	require.Equal(t, "0", before["ipv4/ip_forward"])

	// A node in both families is not a router.
	i := create(t, n.node, nodeConfig)
	assert.Equal(t, "0", forwardingState(t, n.node)["ipv4/conf/lmn0/forwarding"])
	require.NoError(t, i.Close())

	i = create(t, n.node, Config{EIDs: prefixes("192.0.2.0/24", "2001:db8:e::/48"), Router: true})
	require.NoError(t, i.Repair()) // does not do it twice
	now := forwardingState(t, n.node)
	for _, k := range []string{"ipv4/ip_forward", "ipv4/conf/lmn0/forwarding", "ipv6/conf/all/forwarding", "ipv6/conf/lmn0/forwarding", "ipv6/conf/eth0/forwarding"} {
		assert.Equal(t, "1", now[k], k)
	}
	assert.Equal(t, "2", now["ipv6/conf/eth0/accept_ra"], "the uplink still learns its default route")
	assert.Contains(t, n.node.MustRun("ip", "-6", "route", "show", "default"), "proto ra")
	require.NoError(t, i.Close())
	assert.Equal(t, before, forwardingState(t, n.node))

	// One family only; and what is on already stays on.
	i = create(t, n.node, Config{EIDs: prefixes("192.0.2.0/24"), Router: true})
	now = forwardingState(t, n.node)
	assert.Equal(t, "1", now["ipv4/ip_forward"])
	assert.Equal(t, "0", now["ipv6/conf/all/forwarding"])
	require.NoError(t, i.Close())
	n.node.Sysctl("net/ipv4/ip_forward", "1")
	before = forwardingState(t, n.node)
	i = create(t, n.node, Config{EIDs: prefixes("192.0.2.0/24"), Router: true})
	require.NoError(t, i.Close())
	assert.Equal(t, before, forwardingState(t, n.node))
}

// What hosts behind an EID-Prefix send goes to the tunnel, but not what one part
// of the EID-Prefix sends another.
func TestRouterRoutes(t *testing.T) {
	n := newNetwork(t)
	h1, h2 := n.lab.Host("h1"), n.lab.Host("h2")
	n.lab.Link(h1, n.node, netlab.LinkConfig{A: netlab.At("192.0.2.10/25", "2001:db8:e:1::10/64"), B: netlab.At("192.0.2.2/25", "2001:db8:e:1::1/64")})
	n.lab.Link(h2, n.node, netlab.LinkConfig{A: netlab.At("192.0.2.200/25", "2001:db8:e:2::10/64"), B: netlab.At("192.0.2.129/25", "2001:db8:e:2::1/64")})
	h1.DefaultVia("192.0.2.2", "2001:db8:e:1::1")
	h2.DefaultVia("192.0.2.129", "2001:db8:e:2::1")
	i := create(t, n.node, Config{EIDs: prefixes("192.0.2.0/24", "2001:db8:e::/48"), Router: true})
	packets := readAll(i)
	at2 := listener(t, h2)
	require.NoError(t, send(t, h1, "", "", "192.0.2.200", "neighbour"))
	assert.Equal(t, "192.0.2.10 neighbour", at2())
	require.NoError(t, send(t, h1, "", "", "2001:db8:e:2::10", "neighbour"))
	assert.Equal(t, "2001:db8:e:1::10 neighbour", at2())
	require.NoError(t, send(t, h1, "", "", far4, "out"))
	p := <-packets
	assert.Equal(t, "192.0.2.10->"+far4, p.NetworkLayer().NetworkFlow().String())
	assert.EqualValues(t, 63, p.Layer(layers.LayerTypeIPv4).(*layers.IPv4).TTL, "decremented once")
	require.NoError(t, send(t, h2, "", "", far6, "out"))
	assert.Equal(t, "2001:db8:e:2::10 > "+far6+" out", next(t, packets))
}

func TestProxyRoutes(t *testing.T) {
	n := newNetwork(t)
	outside := n.lab.Host("outside")
	n.lab.Link(outside, n.node, netlab.LinkConfig{A: netlab.At("10.5.0.2/24", "2001:db8:5::2/64"), B: netlab.At("10.5.0.1/24", "2001:db8:5::1/64")})
	outside.DefaultVia("10.5.0.1", "2001:db8:5::1")
	n.far.AddRoute("10.5.0.0/24", "203.0.113.1")
	n.near.AddRoute("10.5.0.0/24", rloc4)
	i := create(t, n.node, Config{Destinations: prefixes("192.0.2.0/24", "2001:db8:e::/48"), Proxy: true})
	packets := readAll(i)
	far := listener(t, n.far)
	require.NoError(t, send(t, outside, "", "", far4, "native"))
	assert.Equal(t, "10.5.0.2 native", far())
	require.NoError(t, send(t, outside, "", "", "192.0.2.7", "to an EID"))
	assert.Equal(t, "10.5.0.2 > 192.0.2.7 to an EID", next(t, packets))
	require.NoError(t, send(t, outside, "", "", "2001:db8:e::7", "to an EID"))
	assert.Equal(t, "2001:db8:5::2 > 2001:db8:e::7 to an EID", next(t, packets))
}

func TestQueues(t *testing.T) {
	n := newNetwork(t)
	cfg := nodeConfig
	cfg.Queues = 4
	i := create(t, n.node, cfg)
	queues := i.Queues()
	require.Len(t, queues, 4)
	assert.Same(t, i, queues[0])
	got := make(chan int, 1000)
	var wg sync.WaitGroup
	for at, q := range queues {
		assert.Equal(t, "lmn0", q.Name())
		assert.Equal(t, i.MTU(), q.MTU())
		packets := readAll(q)
		wg.Go(func() {
			for range packets {
				got <- at
			}
		})
	}
	// Flows are spread, and none is lost.
	seen := map[int]bool{}
	for flow := range 200 {
		require.NoError(t, send(t, n.node, "", "", fmt.Sprintf("198.51.100.%d", flow), "x"))
		seen[<-got] = true
	}
	assert.Greater(t, len(seen), 1)

	// What is written to any queue arrives.
	node := listener(t, n.node)
	for at, q := range queues {
		_, err := q.Write([][]byte{append(make([]byte, Headroom), udpPacket(far4, eid4, fmt.Sprint(at))...)}, Headroom)
		require.NoError(t, err)
		assert.Equal(t, far4+" "+fmt.Sprint(at), node())
	}
	require.NoError(t, queues[3].Close()) // closes all
	wg.Wait()
	require.NoError(t, i.Close())

	// A device made for one queue is not adopted for several.
	persistent(t, n.node, 0)
	require.NoError(t, n.node.Do(func() error {
		_, err := Create(cfg)
		assert.ErrorIs(t, err, ErrInUse)
		return nil
	}))
}

// udpPacket returns an IPv4 packet with a datagram to port 7.
func udpPacket(src, dst, payload string) []byte {
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
	udp := &layers.UDP{SrcPort: 7, DstPort: 7}
	_ = udp.SetNetworkLayerForChecksum(ip)
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, udp, gopacket.Payload(payload)); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// The kernel lets any process have a further queue of a device made for several.
func TestQueuesInUse(t *testing.T) {
	n := newNetwork(t)
	cfg := nodeConfig
	cfg.Queues = 2
	create(t, n.node, cfg)
	before := state(t, n.node)
	for _, other := range []Config{cfg, nodeConfig} {
		require.NoError(t, n.node.Do(func() error {
			i, err := Create(other)
			if err == nil {
				_ = i.Close()
			}
			assert.ErrorIs(t, err, ErrInUse)
			assert.ErrorIs(t, Cleanup(other), ErrInUse)
			return nil
		}))
	}
	assert.Equal(t, before, state(t, n.node), "the one who has it must not notice")
}
