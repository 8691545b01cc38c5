package lisplayers

import (
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/xtrkit/xtrkit/lisp"
)

// Layer types. Their numbers are in the range that gopacket leaves to others.
var (
	LayerTypeLISP        = gopacket.RegisterLayerType(1341, gopacket.LayerTypeMetadata{Name: "LISP", Decoder: gopacket.DecodeFunc(decodeLISP)})
	LayerTypeLISPControl = gopacket.RegisterLayerType(1342, gopacket.LayerTypeMetadata{Name: "LISPControl", Decoder: gopacket.DecodeFunc(decodeControl)})
	LayerTypeLISPShim    = gopacket.RegisterLayerType(1343, gopacket.LayerTypeMetadata{Name: "LISPShim", Decoder: gopacket.DecodeFunc(decodeShim)})
	LayerTypeVXLANGPE    = gopacket.RegisterLayerType(1344, gopacket.LayerTypeMetadata{Name: "VXLANGPE", Decoder: gopacket.DecodeFunc(decodeVXLANGPE)})
)

//nolint:gochecknoinits // gopacket finds decoders in its own tables
func init() {
	layers.RegisterUDPPortLayerType(lisp.DataPort, LayerTypeLISP)
	layers.RegisterUDPPortLayerType(lisp.ControlPort, LayerTypeLISPControl)
	layers.RegisterUDPPortLayerType(lisp.VXLANGPEPort, LayerTypeVXLANGPE)
}

// LISP is the header of a data packet (RFC 9300 §5.3, RFC 9305).
type LISP struct {
	layers.BaseLayer
	Header lisp.DataHeader
}

// LayerType implements gopacket.Layer.
func (*LISP) LayerType() gopacket.LayerType { return LayerTypeLISP }

// CanDecode implements gopacket.DecodingLayer.
func (*LISP) CanDecode() gopacket.LayerClass { return LayerTypeLISP }

// DecodeFromBytes implements gopacket.DecodingLayer.
func (l *LISP) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	h, err := lisp.ParseDataHeader(data)
	if err != nil {
		df.SetTruncated()
		return err
	}
	l.Header = h
	l.BaseLayer = layers.BaseLayer{Contents: data[:lisp.DataHeaderLen], Payload: data[lisp.DataHeaderLen:]}
	return nil
}

// NextLayerType implements gopacket.DecodingLayer. The P bit counts if the
// fields that it excludes are zero, since a capture does not say whether the
// peers do LISP-GPE. Otherwise the first four bits tell: IPv4, IPv6, and with
// Instance ID 0xffffff also a bare Info message.
func (l *LISP) NextLayerType() gopacket.LayerType {
	if l.Header.KeyID() != 0 {
		return gopacket.LayerTypePayload
	}
	if p, ok := l.Header.NextProtocol(); ok && l.Contents[1] == 0 && l.Contents[2] == 0 && l.Header.Flags()&0xb0 == 0 {
		return nextLayerType(p)
	}
	if iid, ok := l.Header.InstanceID(); ok && iid == lisp.InstanceIDControl && lisp.TypeOf(l.Payload) == lisp.TypeInfo {
		return LayerTypeLISPControl
	}
	return ipLayerType(l.Payload)
}

// SerializeTo implements gopacket.SerializableLayer.
func (l *LISP) SerializeTo(b gopacket.SerializeBuffer, _ gopacket.SerializeOptions) error {
	out, err := b.PrependBytes(lisp.DataHeaderLen)
	if err != nil {
		return err
	}
	lisp.PutDataHeader(out, l.Header)
	return nil
}

func ipLayerType(b []byte) gopacket.LayerType {
	if len(b) > 0 {
		switch b[0] >> 4 {
		case 4:
			return layers.LayerTypeIPv4
		case 6:
			return layers.LayerTypeIPv6
		}
	}
	return gopacket.LayerTypePayload
}

func nextLayerType(p lisp.NextProtocol) gopacket.LayerType {
	switch p {
	case lisp.NextIPv4:
		return layers.LayerTypeIPv4
	case lisp.NextIPv6:
		return layers.LayerTypeIPv6
	case lisp.NextEthernet:
		return layers.LayerTypeEthernet
	default:
		if p.IsShim() {
			return LayerTypeLISPShim
		}
		return gopacket.LayerTypePayload
	}
}

func decodeLISP(data []byte, p gopacket.PacketBuilder) error {
	return decode(new(LISP), data, p)
}

// decodingLayer is what this package's layers are.
type decodingLayer interface {
	gopacket.Layer
	gopacket.DecodingLayer
}

func decode(l decodingLayer, data []byte, p gopacket.PacketBuilder) error {
	if err := l.DecodeFromBytes(data, p); err != nil {
		return err
	}
	p.AddLayer(l)
	if len(l.LayerPayload()) == 0 {
		return nil
	}
	return p.NextDecoder(l.NextLayerType())
}

// LISPShim is a shim header behind a LISP-GPE header (RFC 9305 §3).
type LISPShim struct {
	layers.BaseLayer
	Header lisp.ShimHeader
}

// LayerType implements gopacket.Layer.
func (*LISPShim) LayerType() gopacket.LayerType { return LayerTypeLISPShim }

// CanDecode implements gopacket.DecodingLayer.
func (*LISPShim) CanDecode() gopacket.LayerClass { return LayerTypeLISPShim }

// NextLayerType implements gopacket.DecodingLayer.
func (l *LISPShim) NextLayerType() gopacket.LayerType { return nextLayerType(l.Header.Next) }

// DecodeFromBytes implements gopacket.DecodingLayer.
func (l *LISPShim) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	h, n, err := lisp.ParseShimHeader(data)
	if err != nil {
		df.SetTruncated()
		return err
	}
	l.Header = h
	l.BaseLayer = layers.BaseLayer{Contents: data[:n], Payload: data[n:]}
	return nil
}

// SerializeTo implements gopacket.SerializableLayer.
func (l *LISPShim) SerializeTo(b gopacket.SerializeBuffer, _ gopacket.SerializeOptions) error {
	h, err := l.Header.AppendBinary(nil)
	if err != nil {
		return err
	}
	return prepend(b, h)
}

func prepend(b gopacket.SerializeBuffer, octets []byte) error {
	out, err := b.PrependBytes(len(octets))
	if err != nil {
		return err
	}
	copy(out, octets)
	return nil
}

func decodeShim(data []byte, p gopacket.PacketBuilder) error { return decode(new(LISPShim), data, p) }

// VXLANGPE is the header of a VXLAN-GPE packet.
type VXLANGPE struct {
	layers.BaseLayer
	Header lisp.VXLANGPEHeader
}

// LayerType implements gopacket.Layer.
func (*VXLANGPE) LayerType() gopacket.LayerType { return LayerTypeVXLANGPE }

// CanDecode implements gopacket.DecodingLayer.
func (*VXLANGPE) CanDecode() gopacket.LayerClass { return LayerTypeVXLANGPE }

// NextLayerType implements gopacket.DecodingLayer.
func (l *VXLANGPE) NextLayerType() gopacket.LayerType { return nextLayerType(l.Header.NextProtocol()) }

// DecodeFromBytes implements gopacket.DecodingLayer.
func (l *VXLANGPE) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	h, err := lisp.ParseVXLANGPEHeader(data)
	if err != nil {
		if len(data) < lisp.DataHeaderLen {
			df.SetTruncated()
		}
		return err
	}
	l.Header = h
	l.BaseLayer = layers.BaseLayer{Contents: data[:lisp.DataHeaderLen], Payload: data[lisp.DataHeaderLen:]}
	return nil
}

// SerializeTo implements gopacket.SerializableLayer.
func (l *VXLANGPE) SerializeTo(b gopacket.SerializeBuffer, _ gopacket.SerializeOptions) error {
	out, err := b.PrependBytes(lisp.DataHeaderLen)
	if err != nil {
		return err
	}
	lisp.PutVXLANGPEHeader(out, l.Header)
	return nil
}

func decodeVXLANGPE(data []byte, p gopacket.PacketBuilder) error {
	return decode(new(VXLANGPE), data, p)
}
