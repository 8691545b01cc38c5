package encap

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

var (
	macA = mapcache.MAC{2, 0, 0, 0, 0, 0xa}
	macB = mapcache.MAC{2, 0, 0, 0, 0, 0xb}
)

// frameTo is an Ethernet frame from macA with tags and what follows them.
func frameTo(dst mapcache.MAC, rest ...byte) []byte {
	return append(append(append([]byte(nil), dst[:]...), macA[:]...), rest...)
}

func macTo(iid uint32, m mapcache.MAC, rloc string, f mapcache.Format) mapcache.Mapping {
	return mapcache.Mapping{
		Key: mapcache.MACKey(iid, m), TTL: time.Hour,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rloc), Format: f}, Priority: 1, Weight: 1}},
	}
}

func TestSendFrame(t *testing.T) {
	ip := packetSpec{src: eidA4, dst: eidB4, sport: 5, dport: 6, tos: 0xff, payloadLen: 30}.build()
	ipFrame := frameTo(macB, append([]byte{8, 0}, ip...)...)
	arp := frameTo(macB, append([]byte{8, 6}, make([]byte, 28)...)...)
	tagged := frameTo(macB, append([]byte{0x88, 0xa8, 0xa0, 7, 0x81, 0, 0x20, 8, 8, 0}, ip...)...)
	for _, tt := range []struct {
		name    string
		mapping mapcache.Mapping
		frame   []byte
		want    DropReason
		tos     uint8
	}{
		{"LISP-GPE", macTo(0, macB, rlocB4, mapcache.FormatGPE), ipFrame, DropNone, 0},
		{"VXLAN-GPE over IPv6", macTo(0, macB, rlocB6, mapcache.FormatVXLANGPE), ipFrame, DropNone, 0},
		{"no IP", macTo(0, macB, rlocB4, mapcache.FormatGPE), arp, DropNone, 0},
		{"priority", macTo(0, macB, rlocB4, mapcache.FormatGPE), tagged, DropNone, 5 << 5}, // RFC 9305-4.4-2
		{"shortest", macTo(0, macB, rlocB4, mapcache.FormatGPE), frameTo(macB, 0x81, 0), DropNone, 0},
		{"the LISP format carries no frames", macTo(0, macB, rlocB4, mapcache.FormatLISP), ipFrame, DropProtocol, 0},
		{"too short", macTo(0, macB, rlocB4, mapcache.FormatGPE), frameTo(macB, 8), DropTruncated, 0},
		{"too long", macTo(0, macB, rlocB4, mapcache.FormatGPE), frameTo(macB, make([]byte, 1500-36-11)...), DropTooBig, 0},
		{"not too long", macTo(0, macB, rlocB4, mapcache.FormatGPE), frameTo(macB, make([]byte, 1500-36-12)...), DropNone, 0},
		{"unknown MAC", macTo(0, macA, rlocB4, mapcache.FormatGPE), ipFrame, DropRequest, 0},
		{"of another instance", macTo(9, macB, rlocB4, mapcache.FormatGPE), ipFrame, DropRequest, 0},
		{"a locator of ours", macTo(0, macB, rlocA4, mapcache.FormatGPE), ipFrame, DropLoop, 0},
		{"negative", mapcache.Mapping{Key: mapcache.MACKey(0, macB), TTL: time.Hour, Action: lisp.ActionDropNoReason}, ipFrame, DropAction, 0},
		{"no locator", mapcache.Mapping{Key: mapcache.MACKey(0, macB), TTL: time.Hour, RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rlocB4)}, Priority: 255}}}, ipFrame, DropNoLocator, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, "")
			x.insert(t, tt.mapping)
			before := clone(tt.frame)
			err := x.SendFrame(0, tt.frame)
			assert.Equal(t, before, tt.frame)
			out := x.underlay.take()
			if tt.want != DropNone {
				require.Error(t, err)
				assert.Equal(t, tt.want == DropTooBig, errors.Is(err, ErrTooBig))
				assert.Empty(t, out)
				assert.Equal(t, map[DropReason]uint64{tt.want: 1}, x.drops())
				if tt.want == DropRequest {
					assert.Equal(t, mapcache.Discovery{Kind: mapcache.DiscoveryRequest, Key: mapcache.MACKey(0, macB)}, <-x.Discoveries())
				}
				return
			}
			require.NoError(t, err)
			require.Len(t, out, 1)
			o := out[0]
			l := tt.mapping.RLOCs[0].Locator
			assert.Equal(t, netip.AddrPortFrom(l.Addr, l.Format.Port()), o.Remote)
			assert.Equal(t, l.Format, o.Format)
			assert.Equal(t, append([]byte{0x0c, 0, 0, 3, 0, 0, 0, 0}, tt.frame...), append(o.Bytes, o.Payload...))
			assert.Equal(t, tt.tos, o.TOS)
			assert.EqualValues(t, 64, o.TTL)
			assert.False(t, o.MayFragment)
			if tt.name == "LISP-GPE" || tt.name == "priority" {
				assert.Equal(t, mapcache.FlowHash(0, ip), o.Hash, "the flow in the frame")
			}
			assert.Equal(t, Counter{1, uint64(len(tt.frame))}, x.Stats().Encapsulated)
			assert.Equal(t, []LocatorStats{{Locator: mapcache.Locator{Addr: l.Addr, Port: l.Format.Port(), Format: l.Format}, Out: Counter{1, uint64(len(tt.frame))}}}, x.Stats().Locators)
		})
	}
}

// TestSendFrameErrors: what the network says comes back, and an unknown instance is
// an error.
func TestSendFrameErrors(t *testing.T) {
	x := newA(t, &memNet{}, "", func(c *nodeConfig) { c.pathMTU = 1400 })
	x.insert(t, macTo(0, macB, rlocB4, mapcache.FormatGPE))
	err := x.SendFrame(0, frameTo(macB, make([]byte, 1400)...))
	assert.True(t, errors.Is(err, ErrTooBig), "%v", err)
	require.Error(t, x.SendFrame(5, frameTo(macB, 8, 0)))
	assert.Equal(t, map[DropReason]uint64{DropTooBig: 1, DropInstance: 1}, x.drops())
}

func TestSendFrameDoesNotAllocate(t *testing.T) {
	x := newA(t, &memNet{}, "", func(c *nodeConfig) {
		c.change = func(cfg *Config) { cfg.Underlay = sink{cfg.Underlay.(*memUnderlay)} }
	})
	x.insert(t, macTo(0, macB, rlocB4, mapcache.FormatGPE))
	frame := frameTo(macB, 8, 6)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if x.SendFrame(0, frame) != nil {
			panic("not sent")
		}
	}))
}
