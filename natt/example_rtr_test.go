package natt_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// A Map-Server's answer to a node that asks where it comes from.
func ExampleServer() {
	key := lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("secret of the site")}
	s, err := natt.NewServer(natt.ServerConfig{
		RTRs: []netip.Addr{netip.MustParseAddr("203.0.113.9")},
		Site: func(iid uint32, eid netip.Prefix) (natt.SiteInfo, bool) {
			return natt.SiteInfo{Name: "home", Keys: []lisp.Key{key}}, true
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := lisp.InfoRequest{Nonce: 1, MaskLen: 32, EID: lisp.AddressFrom(netip.MustParseAddr("192.0.2.1"))}
	b, err := ask.AppendSigned(nil, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	s.Handle(time.Now(), lisp.Datagram{
		Local:  netip.MustParseAddrPort("198.51.100.1:4342"),
		Remote: netip.MustParseAddrPort("198.51.100.7:49152"), // of the NAT
		Bytes:  b,
	})
	for d, ok := s.Next(); ok; d, ok = s.Next() {
		m, err := lisp.Parse(d.Bytes)
		if err != nil {
			fmt.Println(err)
			return
		}
		n, err := m.(*lisp.InfoReply).Traversal()
		fmt.Println(d.Remote, n, err)
	}
	// Output:
	// 198.51.100.7:49152 nat-traversal(global 198.51.100.7 port 49152, ms 198.51.100.1 port 4342, private none, rtrs 203.0.113.9) <nil>
}

// What an RTR does with a Map-Register that a node behind a NAT sends it. The relay
// comes with the Map-Notify.
func ExampleRTR() {
	rtr, err := natt.NewRTR(natt.RTRConfig{MapServers: []natt.RTRMapServer{{
		Addr: netip.MustParseAddr("198.51.100.1"),
		Key:  lisp.Key{ID: 2, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("shared with the Map-Server")},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	register := lisp.MapRegister{WantMapNotify: true, XTRIDPresent: true, XTRID: lisp.XTRID{1}, Nonce: 7, Records: []lisp.EIDRecord{{
		TTL: 10, MaskLen: 32, EID: lisp.AddressFrom(netip.MustParseAddr("192.0.2.1")),
	}}}
	msg, err := register.AppendSigned(nil, lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("secret of the site")})
	if err != nil {
		fmt.Println(err)
		return
	}
	packet, err := lisp.AppendInner(nil, lisp.Inner{
		Source: netip.MustParseAddrPort("10.0.0.2:4342"), Destination: netip.MustParseAddrPort("198.51.100.1:4342"), Payload: msg,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := (&lisp.EncapsulatedControl{RTR: true, Packet: packet}).MarshalBinary()
	if err != nil {
		fmt.Println(err)
		return
	}
	claimed := rtr.Handle(time.Now(), lisp.Datagram{
		Local:  netip.MustParseAddrPort("203.0.113.9:4342"),
		Remote: netip.MustParseAddrPort("198.51.100.7:49152"), // of the NAT
		Bytes:  b,
	})
	for d, ok := rtr.Next(); ok; d, ok = rtr.Next() {
		fmt.Println(claimed, d.Remote, lisp.TypeOf(d.Bytes))
	}
	st := rtr.Stats()
	fmt.Println(st.Pending, "waits for its Map-Notify,", st.Relays, "relays")
	// Output:
	// true 198.51.100.1:4342 ECM
	// 1 waits for its Map-Notify, 0 relays
}
