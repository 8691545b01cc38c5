package lisplayers

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

type vectorOf struct {
	Name   string
	Hex    string
	UDPSrc uint16 `json:"udp_src"`
	UDPDst uint16 `json:"udp_dst"`
}

func loadVectors(t testing.TB) []vectorOf {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors.json")
	require.NoError(t, err)
	var v struct{ Vectors []vectorOf }
	require.NoError(t, json.Unmarshal(b, &v))
	return v.Vectors
}

// datagram puts payload behind IPv4 and UDP.
func datagram(t testing.TB, src, dst uint16, payload gopacket.SerializableLayer, more ...gopacket.SerializableLayer) []byte {
	t.Helper()
	ip := &layers.IPv4{
		Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP,
		SrcIP: net.IP{203, 0, 113, 1}, DstIP: net.IP{203, 0, 113, 2},
	}
	udp := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
	require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
	b := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	require.NoError(t, gopacket.SerializeLayers(b, opts, append([]gopacket.SerializableLayer{ip, udp, payload}, more...)...))
	return b.Bytes()
}

func layerTypes(p gopacket.Packet) []gopacket.LayerType {
	var ts []gopacket.LayerType
	for _, l := range p.Layers() {
		ts = append(ts, l.LayerType())
	}
	return ts
}

func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			payload, err := hex.DecodeString(v.Hex)
			require.NoError(t, err)
			p := gopacket.NewPacket(datagram(t, v.UDPSrc, v.UDPDst, gopacket.Payload(payload)), layers.LayerTypeIPv4, gopacket.Default)
			require.Nil(t, p.ErrorLayer())
			if l, ok := p.Layer(LayerTypeLISP).(*LISP); ok {
				h, err := lisp.ParseDataHeader(payload)
				require.NoError(t, err)
				assert.Equal(t, h, l.Header)
				return
			}
			l, ok := p.Layer(LayerTypeLISPControl).(*LISPControl)
			require.True(t, ok, p)
			want, err := lisp.Parse(payload)
			require.NoError(t, err)
			assert.Equal(t, want.String(), l.Message.String())
			assert.NotNil(t, p.ApplicationLayer())
			assert.Equal(t, v.Hex, hex.EncodeToString(append(append([]byte(nil), l.LayerContents()...), l.LayerPayload()...)))
		})
	}
}

func TestPaths(t *testing.T) {
	byName := map[string]vectorOf{}
	for _, v := range loadVectors(t) {
		byName[v.Name] = v
	}
	outer := []gopacket.LayerType{layers.LayerTypeIPv4, layers.LayerTypeUDP}
	for _, tt := range []struct {
		vector string
		path   []gopacket.LayerType
	}{
		{"ecm-map-request-v4", []gopacket.LayerType{LayerTypeLISPControl, layers.LayerTypeIPv4, layers.LayerTypeUDP, LayerTypeLISPControl}},
		{"ecm-map-request-v6", []gopacket.LayerType{LayerTypeLISPControl, layers.LayerTypeIPv6, layers.LayerTypeUDP, LayerTypeLISPControl}},
		{"data-v6", []gopacket.LayerType{LayerTypeLISP, layers.LayerTypeIPv6, layers.LayerTypeUDP, gopacket.LayerTypePayload}},
		{"data-gpe-eth", []gopacket.LayerType{LayerTypeLISP, layers.LayerTypeEthernet, layers.LayerTypeIPv4, layers.LayerTypeUDP, gopacket.LayerTypePayload}},
		{"data-map-notify", []gopacket.LayerType{LayerTypeLISP, layers.LayerTypeIPv4, layers.LayerTypeUDP, LayerTypeLISPControl}},
	} {
		t.Run(tt.vector, func(t *testing.T) {
			v := byName[tt.vector]
			payload, err := hex.DecodeString(v.Hex)
			require.NoError(t, err)
			p := gopacket.NewPacket(datagram(t, v.UDPSrc, v.UDPDst, gopacket.Payload(payload)), layers.LayerTypeIPv4, gopacket.Default)
			assert.Equal(t, append(append([]gopacket.LayerType(nil), outer...), tt.path...), layerTypes(p))
		})
	}
	t.Run("shims", func(t *testing.T) {
		b := datagram(t, 4341, 4341, &LISP{Header: lisp.DataHeader{}.WithNextProtocol(0x80)},
			&LISPShim{Header: lisp.ShimHeader{Type: 1, Next: 0x81, Data: make([]byte, 4)}},
			&LISPShim{Header: lisp.ShimHeader{Type: 2, Next: lisp.NextIPv4}}, gopacket.Payload(datagram(t, 1, 2, gopacket.Payload("x"))))
		p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default)
		assert.Equal(t, []gopacket.LayerType{
			layers.LayerTypeIPv4, layers.LayerTypeUDP, LayerTypeLISP, LayerTypeLISPShim, LayerTypeLISPShim,
			layers.LayerTypeIPv4, layers.LayerTypeUDP, gopacket.LayerTypePayload,
		}, layerTypes(p))
	})
	t.Run("VXLAN-GPE", func(t *testing.T) {
		b := datagram(t, 4790, 4790, &VXLANGPE{Header: lisp.NewVXLANGPEHeader(7, lisp.NextIPv4)}, gopacket.Payload(datagram(t, 1, 2, gopacket.Payload("x"))))
		p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default)
		assert.Equal(t, []gopacket.LayerType{
			layers.LayerTypeIPv4, layers.LayerTypeUDP, LayerTypeVXLANGPE, layers.LayerTypeIPv4, layers.LayerTypeUDP, gopacket.LayerTypePayload,
		}, layerTypes(p))
		vni, _ := p.Layer(LayerTypeVXLANGPE).(*VXLANGPE).Header.VNI()
		assert.Equal(t, uint32(7), vni)
	})
	t.Run("encrypted", func(t *testing.T) {
		b := datagram(t, 4341, 4341, gopacket.Payload([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0x45, 0}))
		p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default)
		assert.Equal(t, append(append([]gopacket.LayerType(nil), outer...), LayerTypeLISP, gopacket.LayerTypePayload), layerTypes(p))
	})
	t.Run("bare Info-Request on the data port", func(t *testing.T) {
		info, err := hex.DecodeString(byName["info-request-lispersnet"].Hex)
		require.NoError(t, err)
		b := datagram(t, 30000, 4341, &LISP{Header: lisp.DataHeader{}.WithInstanceID(lisp.InstanceIDControl)}, gopacket.Payload(info))
		p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default)
		require.NotNil(t, p.Layer(LayerTypeLISPControl))
		assert.IsType(t, (*lisp.InfoRequest)(nil), p.Layer(LayerTypeLISPControl).(*LISPControl).Message)
	})
	t.Run("malformed", func(t *testing.T) {
		for _, port := range []uint16{4341, 4342, 4790} {
			p := gopacket.NewPacket(datagram(t, port, port, gopacket.Payload{0x10}), layers.LayerTypeIPv4, gopacket.Default)
			assert.NotNil(t, p.ErrorLayer(), port)
			assert.True(t, p.Metadata().Truncated, port)
		}
	})
}

// TestHostileData has the data packets that stop other implementations.
func TestHostileData(t *testing.T) {
	iid := func(v lisp.DataHeader, payload ...byte) []byte {
		b := make([]byte, lisp.DataHeaderLen)
		lisp.PutDataHeader(b, v)
		return append(b, payload...)
	}
	control := lisp.DataHeader{}.WithInstanceID(lisp.InstanceIDControl)
	for _, tt := range []struct {
		name    string
		payload []byte
		last    gopacket.LayerType
	}{
		{"3 octets", []byte{0x08, 0, 0}, gopacket.LayerTypeDecodeFailure},
		{"nothing behind the header", iid(lisp.DataHeader{}), LayerTypeLISP},
		{"control instance, nothing behind", iid(control), LayerTypeLISP},
		{"control instance, garbage", iid(control, bytes.Repeat([]byte{0xff}, 12)...), gopacket.LayerTypePayload},
		{"control instance, cut Info", iid(control, 0x70, 0, 0), gopacket.LayerTypeDecodeFailure},
		{"inner version 0", iid(lisp.DataHeader{}, make([]byte, 20)...), gopacket.LayerTypePayload},
		{"inner version 3", iid(lisp.DataHeader{}, 0x35, 0, 0, 20), gopacket.LayerTypePayload},
		{"cut inner IPv4", iid(lisp.DataHeader{}, 0x45, 0), gopacket.LayerTypeDecodeFailure},
		{"cut inner IPv6", iid(lisp.DataHeader{}, 0x60, 0, 0, 0, 0, 99), gopacket.LayerTypeDecodeFailure},
		{"unknown next protocol", iid(lisp.DataHeader{}.WithNextProtocol(0x55), 1, 2, 3), gopacket.LayerTypePayload},
		{"shim that is not there", iid(lisp.DataHeader{}.WithNextProtocol(0x80), 0, 255, 0, 1), gopacket.LayerTypeDecodeFailure},
		{"encrypted, short", []byte{3, 0, 0, 0, 0, 0, 0, 0, 1}, gopacket.LayerTypePayload},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := gopacket.NewPacket(datagram(t, 61000, lisp.DataPort, gopacket.Payload(tt.payload)), layers.LayerTypeIPv4, gopacket.Default)
			all := p.Layers()
			assert.Equal(t, tt.last, all[len(all)-1].LayerType(), p)
		})
	}
}

// TestCaptures walks all packets of the captures.
func TestCaptures(t *testing.T) {
	files, err := filepath.Glob("../testdata/oor/*.pcap")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		r, err := pcapgo.NewReader(f)
		require.NoError(t, err)
		for p := range gopacket.NewPacketSource(r, r.LinkType()).Packets() {
			require.Nil(t, p.ErrorLayer(), "%s: %s", file, p)
			if p.Layer(layers.LayerTypeARP) != nil || p.Layer(layers.LayerTypeICMPv4) != nil && p.Layer(layers.LayerTypeUDP) == nil {
				continue
			}
			assert.True(t, p.Layer(LayerTypeLISP) != nil || p.Layer(LayerTypeLISPControl) != nil, "%s: %s", file, p)
		}
	}
}

func TestSerializeECM(t *testing.T) {
	request := &lisp.MapRequest{
		Nonce: 7, ITRRLOCs: []lisp.Address{lisp.AddressFrom(netip.MustParseAddr("203.0.113.1"))},
		Records: []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(netip.MustParseAddr("192.0.2.1"))}},
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{203, 0, 113, 1}, DstIP: net.IP{192, 0, 2, 1}}
	udp := &layers.UDP{SrcPort: 4342, DstPort: 4342}
	require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
	b := datagram(t, 4342, 4342, &LISPControl{Message: &lisp.EncapsulatedControl{DDT: true, Packet: []byte("replaced")}},
		ip, udp, &LISPControl{Message: request})
	p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default)
	require.Nil(t, p.ErrorLayer())
	ecm := p.Layer(LayerTypeLISPControl).(*LISPControl).Message.(*lisp.EncapsulatedControl)
	assert.True(t, ecm.DDT)
	in, err := ecm.Inner()
	require.NoError(t, err, "gopacket makes the same checksums")
	want, err := request.MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, want, in.Payload)

	buf := gopacket.NewSerializeBuffer()
	assert.Error(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, &LISPControl{}))
	assert.Error(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, &LISPControl{Message: request}, gopacket.Payload("x")))
	assert.Error(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, &LISPControl{Message: &lisp.MapRequest{}}))
	assert.Error(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, &LISPShim{Header: lisp.ShimHeader{Data: make([]byte, 3)}}))
}

func TestParserDoesNotAllocate(t *testing.T) {
	var (
		ip4     layers.IPv4
		ip6     layers.IPv6
		udp     layers.UDP
		data    LISP
		control LISPControl
		payload gopacket.Payload
	)
	parser := gopacket.NewDecodingLayerParser(layers.LayerTypeIPv4, &ip4, &ip6, &udp, &data, &control, &payload)
	decoded := make([]gopacket.LayerType, 0, 8)
	for _, v := range loadVectors(t) {
		switch v.Name {
		case "map-request-v4", "map-reply-2loc", "data-iid", "ecm-map-request-v6":
		default:
			continue
		}
		octets, err := hex.DecodeString(v.Hex)
		require.NoError(t, err)
		b := datagram(t, v.UDPSrc, v.UDPDst, gopacket.Payload(octets))
		require.NoError(t, parser.DecodeLayers(b, &decoded), v.Name)
		assert.Greater(t, len(decoded), 2)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if parser.DecodeLayers(b, &decoded) != nil {
				panic(v.Name)
			}
		}), v.Name)
	}
}

func FuzzPacket(f *testing.F) {
	for _, v := range loadVectors(f) {
		b, err := hex.DecodeString(v.Hex)
		require.NoError(f, err)
		f.Add(v.UDPDst, b)
	}
	f.Fuzz(func(t *testing.T, port uint16, b []byte) {
		next := LayerTypeLISPControl
		switch port {
		case lisp.DataPort:
			next = LayerTypeLISP
		case lisp.VXLANGPEPort:
			next = LayerTypeVXLANGPE
		}
		// Only the layers of this package: gopacket's own recover from panics.
		ours := map[gopacket.LayerType]decodingLayer{
			LayerTypeLISP: new(LISP), LayerTypeLISPShim: new(LISPShim),
			LayerTypeLISPControl: new(LISPControl), LayerTypeVXLANGPE: new(VXLANGPE),
		}
		for {
			l, ok := ours[next]
			if !ok || l.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
				return
			}
			if c, ok := l.(*LISPControl); !ok || c.Message != nil {
				out := gopacket.NewSerializeBuffer()
				err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{},
					l.(gopacket.SerializableLayer), gopacket.Payload(l.LayerPayload()))
				if err != nil || !bytes.Equal(out.Bytes(), b) {
					t.Fatalf("%x: %x: %v", b, out.Bytes(), err)
				}
			}
			next, b = l.NextLayerType(), l.LayerPayload()
		}
	})
}
