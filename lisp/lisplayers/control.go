package lisplayers

import (
	"errors"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/xtrkit/xtrkit/lisp"
)

// LISPControl is a control message (RFC 9301). Of an ECM the payload is the
// inner packet.
//
// Message is one of the message types of package lisp; after decoding it
// belongs to the layer and changes with the next packet. It is nil for a data
// packet on the control port, which RTRs send to nodes behind a NAT; a LISP
// layer follows then.
type LISPControl struct {
	layers.BaseLayer
	Message lisp.Message

	// One of each, so that decoding one packet after another does not allocate.
	mapRequest   lisp.MapRequest
	mapReply     lisp.MapReply
	mapRegister  lisp.MapRegister
	mapNotify    lisp.MapNotify
	mapNotifyAck lisp.MapNotifyAck
	mapReferral  lisp.MapReferral
	infoRequest  lisp.InfoRequest
	infoReply    lisp.InfoReply
	ecm          lisp.EncapsulatedControl
	shared       lisp.SharedExtension
	raw          lisp.Raw
}

// LayerType implements gopacket.Layer.
func (*LISPControl) LayerType() gopacket.LayerType { return LayerTypeLISPControl }

// CanDecode implements gopacket.DecodingLayer.
func (*LISPControl) CanDecode() gopacket.LayerClass { return LayerTypeLISPControl }

// DecodeFromBytes implements gopacket.DecodingLayer.
func (l *LISPControl) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	l.Message = nil
	l.BaseLayer = layers.BaseLayer{Contents: data}
	if len(data) > 0 && lisp.TypeOf(data) == 0 {
		l.BaseLayer = layers.BaseLayer{Payload: data}
		return nil
	}
	m := l.reuse(data)
	if err := m.DecodeFromBytes(data); err != nil {
		if errors.Is(err, lisp.ErrTruncated) {
			df.SetTruncated()
		}
		return err
	}
	l.Message = m
	if m == lisp.Message(&l.ecm) {
		n := len(data) - len(l.ecm.Packet)
		l.BaseLayer = layers.BaseLayer{Contents: data[:n], Payload: data[n:]}
	}
	return nil
}

// reuse returns the message to decode data into.
func (l *LISPControl) reuse(data []byte) lisp.Message {
	switch lisp.TypeOf(data) {
	case lisp.TypeMapRequest:
		return &l.mapRequest
	case lisp.TypeMapReply:
		return &l.mapReply
	case lisp.TypeMapRegister:
		return &l.mapRegister
	case lisp.TypeMapNotify:
		return &l.mapNotify
	case lisp.TypeMapNotifyAck:
		return &l.mapNotifyAck
	case lisp.TypeMapReferral:
		return &l.mapReferral
	case lisp.TypeInfo:
		if data[0]&0x08 != 0 {
			return &l.infoReply
		}
		return &l.infoRequest
	case lisp.TypeEncapsulatedControl:
		return &l.ecm
	case lisp.TypeSharedExtension:
		return &l.shared
	default:
		return &l.raw
	}
}

// NextLayerType implements gopacket.DecodingLayer.
func (l *LISPControl) NextLayerType() gopacket.LayerType {
	switch {
	case len(l.BaseLayer.Payload) == 0:
		return gopacket.LayerTypeZero
	case l.Message == nil:
		return LayerTypeLISP
	}
	return ipLayerType(l.BaseLayer.Payload)
}

// Payload implements gopacket.ApplicationLayer. It is the inner packet of an ECM.
func (l *LISPControl) Payload() []byte { return l.BaseLayer.Payload }

// SerializeTo implements gopacket.SerializableLayer. Layers that follow an ECM
// take the place of its Packet; no other message may be followed by any.
func (l *LISPControl) SerializeTo(b gopacket.SerializeBuffer, _ gopacket.SerializeOptions) error {
	m := l.Message
	if m == nil {
		return errors.New("lisplayers: LISPControl without Message")
	}
	if len(b.Bytes()) > 0 {
		e, ok := m.(*lisp.EncapsulatedControl)
		if !ok {
			return errors.New("lisplayers: only an ECM can be followed by other layers")
		}
		header := *e
		header.Packet = nil
		m = &header
	}
	out, err := m.AppendBinary(nil)
	if err != nil {
		return err
	}
	return prepend(b, out)
}

func decodeControl(data []byte, p gopacket.PacketBuilder) error {
	l := new(LISPControl)
	if err := l.DecodeFromBytes(data, p); err != nil {
		return err
	}
	if l.Message == nil {
		return p.NextDecoder(LayerTypeLISP)
	}
	p.AddLayer(l)
	p.SetApplicationLayer(l)
	if len(l.BaseLayer.Payload) == 0 {
		return nil
	}
	return p.NextDecoder(l.NextLayerType())
}
