package main

import (
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Link types beyond those that gopacket has.
const (
	linkIPv4      = 228
	linkIPv6      = 229
	linkLinuxSLL2 = 276 // what tcpdump -i any writes
	sll2HeaderLen = 20
)

// linkLayer returns what data of a link type begins with, and data without a
// link header that gopacket does not know; ok is false for other link types.
func linkLayer(link uint32, data []byte) (gopacket.Decoder, []byte, bool) {
	switch link {
	case uint32(layers.LinkTypeEthernet):
		return layers.LayerTypeEthernet, data, true
	case uint32(layers.LinkTypeNull), uint32(layers.LinkTypeLoop):
		return layers.LayerTypeLoopback, data, true
	case uint32(layers.LinkTypeLinuxSLL):
		return layers.LayerTypeLinuxSLL, data, true
	case uint32(layers.LinkTypePPP):
		return layers.LayerTypePPP, data, true
	case uint32(layers.LinkTypeIEEE802_11):
		return layers.LayerTypeDot11, data, true
	case uint32(layers.LinkTypeIEEE80211Radio):
		return layers.LayerTypeRadioTap, data, true
	case uint32(layers.LinkTypeRaw), 12, 14: // the latter two by the number of some systems
		return layers.LinkTypeRaw, data, true
	case linkIPv4:
		return layers.LayerTypeIPv4, data, true
	case linkIPv6:
		return layers.LayerTypeIPv6, data, true
	case linkLinuxSLL2:
		if len(data) < sll2HeaderLen {
			return gopacket.DecodePayload, data, true
		}
		return layers.EthernetType(binary.BigEndian.Uint16(data)), data[sll2HeaderLen:], true
	}
	return nil, nil, false
}
