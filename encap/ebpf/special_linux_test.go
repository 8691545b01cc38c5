package ebpf

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// path sends a packet to an EID and tells whether the kernel encapsulated it.
func (n *node) path(t *testing.T, device, peer *wire, dst string) (fast bool, o outer) {
	t.Helper()
	before := n.stats()
	device.send(t, spec{src: "10.1.0.1", dst: dst, sport: 3, dport: 4}.build())
	o = parseOuter(peer.read(t, 1, isData)[0])
	return n.stats().KernelEncapsulated.Packets > before.KernelEncapsulated.Packets, o
}

// What the programs can't do as user space does it they leave to user space.
func TestConfiguredSlow(t *testing.T) {
	policy := func(*encap.PolicyPacket) encap.Uplink { return encap.Uplink{} }
	for _, c := range []struct {
		name   string
		change func(*nodeConfig)
		do     func(*testing.T, *node)
		fast   bool
	}{
		{"nothing", func(*nodeConfig) {}, nil, true},
		{"a policy", func(c *nodeConfig) { c.encap = func(c *encap.Config) { c.Policy = policy } }, nil, false},
		{"a policy by marks alone", func(c *nodeConfig) {
			c.encap = func(c *encap.Config) { c.Policy = policy }
			c.ebpf = func(c *Config) { c.MarkMask, c.PolicyIsMarks = 0xffff, true }
		}, nil, true},
		{"UDP checksums", func(c *nodeConfig) { c.udp.Checksum = encap.ChecksumComputed }, nil, false},
		{"a closed network without signals", func(c *nodeConfig) {
			c.encap = func(c *encap.Config) { c.Closed = encap.Closed{MapVersions: true} }
		}, nil, true},
		{"a closed network", func(c *nodeConfig) {
			c.encap = func(c *encap.Config) { c.Closed = encap.Closed{MapVersions: true} }
		}, func(_ *testing.T, n *node) {
			n.kernel.SetSignals(mapcache.Signals{Locals: []mapcache.LocalSignal{{Key: mapcache.HostKey(0, addr("10.1.0.1")), MapVersion: 3}}})
		}, false},
		{"signals of no closed network", func(*nodeConfig) {}, func(_ *testing.T, n *node) { n.kernel.SetSignals(mapcache.Signals{}) }, true},
		{"a pair", func(*nodeConfig) {}, func(_ *testing.T, n *node) {
			n.kernel.SetPairs([]mapcache.Pair{{Local: addr("198.51.100.1"), Remote: mapcache.Locator{Addr: addr("198.51.100.2")}, Rank: 3}})
		}, false},
		{"a pair of which nothing is known any more", func(*nodeConfig) {}, func(_ *testing.T, n *node) {
			for _, rank := range []uint8{3, 0} {
				n.kernel.SetPairs([]mapcache.Pair{{Local: addr("198.51.100.1"), Remote: mapcache.Locator{Addr: addr("198.51.100.2")}, Rank: rank}})
			}
		}, true},
		{"many locators", func(*nodeConfig) {}, func(t *testing.T, n *node) {
			m := mapTo(0, "10.2.0.1/32", "198.51.100.2", 0)
			for i := range maxMembers {
				r := m.RLOCs[0]
				r.Addr, r.Priority = addr("203.0.113.1").Next(), uint8(2+i)
				m.RLOCs = append(m.RLOCs, r)
				m.RLOCs[i+1].Port = uint16(5000 + i)
			}
			n.insert(t, m)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, device, peer := changedNode(t, inKernel, c.change)
			if c.do != nil {
				c.do(t, n)
			}
			fast, _ := n.path(t, device, peer, "10.2.0.1")
			assert.Equal(t, c.fast, fast)
		})
	}
}

// Packets to a locator behind a NAT leave from the one port that the NAT knows, and
// those that come to it are data.
func TestNAT(t *testing.T) {
	n, device, peer := conformanceNode(t, inKernel)
	m := mapTo(0, "10.90.0.1/32", "198.51.100.2", 0)
	m.RLOCs[0].NAT, m.RLOCs[0].Port = true, 6000
	n.insert(t, m)
	device.send(t, spec{src: "10.1.0.1", dst: "10.90.0.1"}.build())
	o := parseOuter(peer.read(t, 1, func(b []byte) bool { return b[0] == 0x45 && b[9] == 17 && parseOuter(b).dst.Port() == 6000 })[0])
	ways := n.fwd.LocalPaths()
	assert.NotZero(t, ways[0].NATPort)
	assert.Equal(t, ways[0].NATPort, o.src.Port())
	assert.NotContains(t, ways[0].Ports, o.src.Port())

	inner := spec{src: "10.90.0.1", dst: "10.1.9.7", ttl: 64, payload: []byte{1, 2}}.build()
	peer.send(t, spec{src: "198.51.100.2", dst: "198.51.100.1", dport: o.src.Port()}.data([8]byte{}, inner))
	assert.Equal(t, inner, device.read(t, 1, func(b []byte) bool { return b[len(b)-1] == 2 })[0])
	s := n.stats()
	assert.EqualValues(t, 1, s.KernelEncapsulated.Packets)
	assert.EqualValues(t, 1, s.KernelDecapsulated.Packets)
}

// What arrives at an RTR for others is not dropped here.
func TestRelay(t *testing.T) {
	n, _, peer := changedNode(t, inKernel, func(c *nodeConfig) {
		c.encap = func(c *encap.Config) { c.Overlays[0].Relay = true }
	})
	before := n.stats()
	peer.send(t, spec{src: "198.51.100.2", dst: "198.51.100.1"}.data([8]byte{}, spec{src: "10.2.0.1", dst: "10.8.0.1"}.build()))
	require.NoError(t, netlab.Eventually(t.Context(), "user space has it", func() bool {
		s := n.stats()
		return handled(&s.Stats) > handled(&before.Stats)
	}))
	s := n.stats()
	assert.EqualValues(t, 1, s.Slow[SlowMiss])
	assert.Equal(t, [encap.NumDropReasons]uint64{}, s.KernelDrops)
}

// The configuration is checked.
func TestConfig(t *testing.T) {
	_, err := New(Config{})
	require.ErrorContains(t, err, "no Forwarder")
	n, _, _ := conformanceNode(t, inKernel)
	cfg := n.kernel.cfg
	cfg.MaxSets = -1
	_, err = New(cfg)
	require.ErrorContains(t, err, "table")
	cfg.MaxSets, cfg.Encap.Overlays = 0, nil
	_, err = New(cfg)
	require.ErrorContains(t, err, "no Overlays")
}
