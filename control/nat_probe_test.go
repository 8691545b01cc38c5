package control_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// dataProbe is an RLOC-probe as an RTR of lispers.net sends it.
func dataProbe(t *testing.T, rtr, global netip.Addr, probe bool) []byte {
	t.Helper()
	m := lisp.MapRequest{
		Probe: probe, Nonce: 77, ITRRLOCs: []lisp.Address{lisp.AddressFrom(rtr)},
		Records: []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(natEID.Prefix.Addr())}},
	}
	payload, err := m.MarshalBinary()
	require.NoError(t, err)
	udp := layers.UDP{SrcPort: 4341, DstPort: 4342}
	ip := layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: rtr.AsSlice(), DstIP: global.AsSlice()}
	require.NoError(t, udp.SetNetworkLayerForChecksum(&ip))
	buf := gopacket.NewSerializeBuffer()
	require.NoError(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&ip, &udp, gopacket.Payload(payload)))
	return append([]byte{8, 0, 0, 0, 0xff, 0xff, 0xff, 0}, buf.Bytes()...)
}

// TestNATDataProbe: an RTR of lispers.net probes us through the NAT, and is answered
// the same way.
func TestNATDataProbe(t *testing.T) {
	for _, tt := range []struct {
		name    string
		variant natt.Variant
		from    netip.Addr
		probe   bool
		want    int
		drop    control.DropReason
	}{
		{"as it should be", natt.LispersNet, natRTRs[1], true, 1, 0},
		{"another variant", natt.Draft19, natRTRs[0], true, 0, 0},
		{"from a stranger", natt.LispersNet, natMS, true, 0, control.DropUnknownSender},
		{"no probe", natt.LispersNet, natRTRs[0], false, 0, control.DropEncapsulated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newNATWorld(t, func(c *control.Config) { c.NAT.Variant = tt.variant })
			_, in := w.behind("nat", nat1, inner1, netsim.NATConfig{Kind: netsim.FullCone})
			w.locals(in)
			w.net.Run(2 * time.Second)
			require.Equal(t, natt.Registered, w.xtr.Bindings()[0].State, w.texts())
			before := len(w.sent)
			msg := dataProbe(t, tt.from, nat1, tt.probe)
			d := lisp.Datagram{Local: netip.AddrPortFrom(inner1, 4341), Remote: netip.AddrPortFrom(tt.from, 4341), Bytes: msg}
			w.node.Step(func(now time.Time) { w.xtr.Handle(now, d) })
			require.Len(t, w.sent, before+tt.want)
			if tt.drop != 0 {
				assert.EqualValues(t, 1, w.xtr.Stats().Dropped[tt.drop])
			}
			if tt.want == 0 {
				return
			}
			out := w.sent[before]
			assert.Equal(t, d.Local, out.From)
			assert.Equal(t, d.Remote, out.To)
			assert.Equal(t, msg[:8], out.Bytes[:8])
			p := gopacket.NewPacket(out.Bytes[8:], layers.LayerTypeIPv4, gopacket.Default)
			require.Nil(t, p.ErrorLayer())
			udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			assert.Equal(t, "203.0.113.7->198.51.100.12", p.NetworkLayer().NetworkFlow().String())
			assert.Equal(t, "4342->4341", fmt.Sprintf("%d->%d", udp.SrcPort, udp.DstPort))
			require.NoError(t, udp.SetNetworkLayerForChecksum(p.NetworkLayer()))
			buf := gopacket.NewSerializeBuffer()
			require.NoError(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true},
				p.NetworkLayer().(*layers.IPv4), udp, gopacket.Payload(udp.Payload)))
			assert.Equal(t, buf.Bytes(), out.Bytes[8:], "checksums")
			var m lisp.MapReply
			require.NoError(t, m.UnmarshalBinary(udp.Payload))
			assert.True(t, m.Probe)
			assert.EqualValues(t, 77, m.Nonce)
			require.Len(t, m.Records, 1)
			_, eid, _ := m.Records[0].Prefix()
			assert.Equal(t, natEID.Prefix, eid)

			// Not as often as anybody likes.
			w.node.Step(func(now time.Time) {
				for range 1000 {
					w.xtr.Handle(now, d)
				}
			})
			assert.Less(t, len(w.sent), before+100)
			assert.Positive(t, w.xtr.Stats().Dropped[control.DropMapReplyRate])
		})
	}
}

// TestRTRProbed: a node behind a NAT probes its RTR, and names an address that is of
// use only to itself. An RTR answers where the probe comes from; nobody else does.
func TestRTRProbed(t *testing.T) {
	own, carrier := netip.MustParseAddr("198.51.100.11"), netip.MustParseAddr("100.64.3.4")
	for _, tt := range []struct {
		name       string
		rtr, probe bool
		rloc, from netip.Addr
		want       netip.Addr
	}{
		{"behind a NAT", true, true, inner1, nat1, nat1},
		{"behind a carrier's NAT", true, true, carrier, nat1, nat1},
		{"behind a NAT behind a carrier's", true, true, inner1, carrier, carrier},
		{"in the same carrier's network", true, true, carrier, carrier.Next(), carrier},
		{"not an RTR", false, true, inner1, nat1, inner1},
		{"in the same private network", true, true, inner1, inner2, inner1},
		{"a public ITR-RLOC", true, true, public1, nat1, public1},
		{"its own ITR-RLOC", true, true, nat1, nat1, nat1},
	} {
		e, err := control.New(control.Config{})
		require.NoError(t, err)
		if tt.rtr {
			e.SetRTR(nil)
		}
		e.SetLocals(natStart, []mapcache.Local{{Addr: own, Up: true, Priority: 1, Weight: 1}})
		m := lisp.MapRequest{
			Probe: tt.probe, Nonce: 5, ITRRLOCs: []lisp.Address{lisp.AddressFrom(tt.rloc)},
			Records: []lisp.RequestRecord{{EID: lisp.AddressFrom(netip.IPv4Unspecified())}},
		}
		b, err := m.MarshalBinary()
		require.NoError(t, err)
		e.Handle(natStart, lisp.Datagram{Local: netip.AddrPortFrom(own, 4342), Remote: netip.AddrPortFrom(tt.from, 51858), Bytes: b})
		d, ok := e.Next()
		require.True(t, ok, tt.name)
		assert.Equal(t, netip.AddrPortFrom(tt.want, 51858), d.Remote, tt.name)
	}
}
