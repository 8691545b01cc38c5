package lisp_test

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/xtrkit/xtrkit/lisp"
)

// A message as it comes from a socket.
func ExampleParse() {
	payload := []byte{
		0x10, 0x00, 0x00, 0x01, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
		0x00, 0x01, 192, 0, 2, 1, 0x00, 0x01, 203, 0, 113, 1,
		0x00, 32, 0x00, 0x01, 198, 51, 100, 7,
	}
	m, err := lisp.Parse(payload)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m)
	if request, ok := m.(*lisp.MapRequest); ok {
		_, prefix, _ := request.Records[0].Prefix()
		fmt.Println("asks for", prefix)
	}
	_, err = lisp.Parse(payload[:20])
	if de, ok := errors.AsType[*lisp.DecodeError](err); ok {
		fmt.Println(de.Field, de.Offset, errors.Is(err, lisp.ErrTruncated))
	}
	// Output:
	// Map-Request nonce 0x0123456789abcdef source 192.0.2.1 itr-rlocs 203.0.113.1 records 198.51.100.7/32
	// asks for 198.51.100.7/32
	// ITR-RLOC Address 18 true
}

// A Map-Request in an Encapsulated Control Message, as an ITR sends it to a
// Map-Resolver.
func ExampleAppendInner() {
	rloc, eid := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("198.51.100.7")
	request := lisp.MapRequest{
		Nonce:     0x0123456789abcdef,
		SourceEID: lisp.AddressFrom(netip.MustParseAddr("192.0.2.1")),
		ITRRLOCs:  []lisp.Address{lisp.AddressFrom(rloc)},
		Records:   []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(eid)}},
	}
	payload, err := request.MarshalBinary()
	if err != nil {
		fmt.Println(err)
		return
	}
	packet, err := lisp.AppendInner(nil, lisp.Inner{
		Source:      netip.AddrPortFrom(rloc, lisp.ControlPort),
		Destination: netip.AddrPortFrom(eid, lisp.ControlPort),
		Payload:     payload,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ecm := lisp.EncapsulatedControl{Packet: packet}
	fmt.Println(&ecm, lisp.CheckSend(&ecm))
	// Output:
	// ECM 203.0.113.1:4342 > 198.51.100.7:4342: Map-Request nonce 0x0123456789abcdef source 192.0.2.1 itr-rlocs 203.0.113.1 records 198.51.100.7/32 <nil>
}

// Signing a Map-Register and verifying it on the other side.
func ExampleVerify() {
	key := lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("shared secret")}
	register := lisp.MapRegister{
		WantMapNotify: true, Nonce: 1,
		Records: []lisp.EIDRecord{{
			TTL: 1440, MaskLen: 24, Authoritative: true, EID: lisp.AddressFrom(netip.MustParseAddr("192.0.2.0")),
			Locators: []lisp.RLOCRecord{{
				Priority: 1, Weight: 100, MPriority: 255, Local: true, Reachable: true,
				RLOC: lisp.AddressFrom(netip.MustParseAddr("203.0.113.1")),
			}},
		}},
	}
	payload, err := register.AppendSigned(nil, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lisp.Verify(payload, key))
	payload[len(payload)-1]++
	fmt.Println(lisp.Verify(payload, key))
	fmt.Println(key)
	// Output:
	// <nil>
	// lisp: verify: digest: authentication failed
	// key 1 hmac-sha-256-128
}

// Signing a message that is encoded already, such as one that is sent again with
// another key.
func ExampleSign() {
	notify := lisp.MapNotify{Nonce: 1, Auth: lisp.Authentication{Data: make([]byte, 32)}}
	payload, err := notify.MarshalBinary()
	if err != nil {
		fmt.Println(err)
		return
	}
	key := lisp.Key{ID: 2, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("shared secret")}
	fmt.Println(lisp.Sign(payload, key))
	m, err := lisp.Parse(payload)
	fmt.Println(m, err)
	fmt.Println(lisp.Verify(payload, key))
	fmt.Println(lisp.Verify(payload, lisp.Key{ID: 1, Algorithm: key.Algorithm, Secret: key.Secret}))
	// Output:
	// <nil>
	// Map-Notify nonce 0x0000000000000001 key-id 2 hmac-sha-256-128/32 <nil>
	// <nil>
	// lisp: verify: Key ID 2, not 1: authentication failed
}

// An address within an instance, and one with structure.
func ExampleAddress() {
	a := lisp.EIDAddress(7, netip.MustParseAddr("192.0.2.1"))
	iid, ip, ok := a.EID()
	fmt.Println(a, iid, ip, ok)

	list, err := lisp.LCAFAddress(&lisp.AFIList{Addresses: []lisp.Address{
		lisp.AddressFrom(netip.MustParseAddr("203.0.113.1")), lisp.AddressFrom(netip.MustParseAddr("2001:db8::1")),
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(list)
	content, err := list.LCAF()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(content.(*lisp.AFIList).Addresses))
	// Output:
	// [7]192.0.2.1 7 192.0.2.1 true
	// afi-list(203.0.113.1, 2001:db8::1)
	// 2
}

// The header of a data packet.
func ExampleDataHeader() {
	packet := make([]byte, lisp.DataHeaderLen, 1500)
	lisp.PutDataHeader(packet, lisp.DataHeader{}.WithInstanceID(7).WithLSBs(0b11))

	h, err := lisp.ParseDataHeader(packet)
	if err != nil {
		fmt.Println(err)
		return
	}
	iid, ok := h.InstanceID()
	fmt.Println(iid, ok)
	fmt.Println(h)
	// Output:
	// 7 true
	// LISP lsbs 0x3 iid 7
}
