package ebpf

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// What comes from a LAN for an EID of ours, this host's or another LAN's, stays here,
// also if a mapping covers all there is, as that of a NAT's RTR does.
func TestLANStaysHere(t *testing.T) {
	tw := newTwin(t, nodeConfig{
		eids:   []string{"10.1.0.1/16", "fd00:1::1/48"},
		locals: []mapcache.Local{{Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
	}, nil)
	tw.insert(t, mapTo(0, "0.0.0.0/0", "203.0.113.1", 0), mapTo(0, "::/0", "203.0.113.1", 0))
	before := tw.kernel.Stats()
	for _, c := range []struct {
		src, dst string
		verdict  int32
	}{
		{"10.1.0.2", "10.2.0.1", redirected},
		{"10.1.0.2", "10.1.0.1", -1},
		{"10.1.0.2", "10.1.7.7", -1},
		{"fd00:1::2", "fd00:2::1", redirected},
		{"fd00:1::2", "fd00:1::1", -1},
		{"fd00:1::2", "fd00:1:0:7::7", -1},
	} {
		verdict, _ := tw.run(t, tw.kernel.objs.EncapLan, ethernet(spec{src: c.src, dst: c.dst, ttl: 9}.build()))
		assert.Equal(t, c.verdict, verdict, c.dst)
	}
	assert.Equal(t, before.Slow, tw.kernel.Stats().Slow, "they are none of our packets")
}

// A LAN's packets are of the instance that SetLANs said last; and a LAN that becomes an
// uplink is none any more, however it is attached.
func TestLANChanges(t *testing.T) {
	for _, mode := range attachModes() {
		dir := pinDir(t)
		p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel}, 0, mapcache.FormatLISP, func(_ int, c *nodeConfig) {
			c.encap = func(c *encap.Config) { c.Overlays = append(c.Overlays, encap.Overlay{InstanceID: 7, Relay: true}) }
			c.ebpf = func(c *Config) { c.Attach, c.Persist, c.PinDir = mode, true, dir }
		})
		n, up := p.nodes[0], place{ifindex: p.link.A.Index}
		do := func(f func() error) {
			t.Helper()
			require.NoError(t, n.host.Do(f))
		}
		for _, iid := range []uint32{0, 7} {
			do(func() error { return n.kernel.SetLANs([]LAN{{IfIndex: 1, InstanceID: iid}}) })
			var d bpfDevice
			require.NoError(t, n.kernel.objs.Devices.Lookup(uint32(1), &d))
			assert.Equal(t, iid, d.Iid)
		}

		ways := n.fwd.LocalPaths()
		locals := []mapcache.Local{ways[0].Local, ways[1].Local}
		do(func() error { return n.kernel.SetLocals(nil) })
		do(func() error { return n.kernel.SetLANs([]LAN{{IfIndex: up.ifindex}}) })
		do(func() error { return n.kernel.SetLocals(locals) })
		do(func() error { return n.kernel.SetLANs(nil) })
		tcx, filters := attached(t, n.host, up)
		assert.Equal(t, 1, tcx+filters, "the uplink's")
		do(n.kernel.Close)
		do(func() error { _, err := Cleanup(dir); return err })
	}
}

// What is no IP stays alone, whatever it looks like: here MPLS, whose label stack may
// begin like either header.
func TestLANNotIP(t *testing.T) {
	tw := newTwin(t, nodeConfig{
		eids:   []string{"10.1.0.1/16"},
		locals: []mapcache.Local{{Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
	}, nil)
	tw.insert(t, mapTo(0, "10.2.0.0/16", "203.0.113.1", 0))
	before := tw.kernel.Stats()
	frame := ethernet(spec{src: "10.1.0.2", dst: "10.2.0.1", ttl: 9}.build())
	verdict, _ := tw.run(t, tw.kernel.objs.EncapLan, frame)
	assert.EqualValues(t, redirected, verdict)
	for _, ethertype := range []uint16{0x8847, 0x86dd, 0x0806} {
		binary.BigEndian.PutUint16(frame[12:], ethertype)
		verdict, _ = tw.run(t, tw.kernel.objs.EncapLan, frame)
		assert.EqualValues(t, -1, verdict, "%x", ethertype)
	}
	s := tw.kernel.Stats()
	assert.Equal(t, before.Slow, s.Slow)
	assert.Equal(t, before.KernelDrops, s.KernelDrops)
}
