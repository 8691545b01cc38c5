// Package lisplayers decodes and builds LISP packets with gopacket: the data
// header on UDP port 4341, control messages on 4342, VXLAN-GPE on 4790.
//
// Importing the package registers the layer types and the ports with gopacket:
//
//	import _ "github.com/xtrkit/xtrkit/lisp/lisplayers"
//
// after which gopacket.NewPacket walks IP, UDP, LISP and the inner packet of
// every packet it meets, and the IP, UDP and message inside an Encapsulated
// Control Message. What a message says is a lisp.Message in LISPControl.
//
// For speed add LISP, LISPShim, VXLANGPE and LISPControl to a
// gopacket.DecodingLayerParser: they do not allocate for plain packets and
// messages. As always with such a parser, an inner layer takes the place of an
// outer one of the same type: of an ECM the message inside remains.
//
// Not in it: the decryption of RFC 8061 (KK set), whose payload stays a payload.
//
// A layer is for one goroutine at a time. Decoded layers alias the packet.
package lisplayers
