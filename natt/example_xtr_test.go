package natt_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// registrar registers one EID-Prefix with one key. control.Engine does this for all
// that it has.
type registrar struct {
	key   lisp.Key
	xtrID lisp.XTRID
	eid   netip.Prefix
	nonce lisp.Nonce
}

func (r *registrar) Site(netip.AddrPort) (uint32, netip.Prefix, bool) { return 0, r.eid, true }

func (r *registrar) SignInfo(b []byte, _ netip.AddrPort, m *lisp.InfoRequest) ([]byte, error) {
	return m.AppendSigned(b, r.key)
}

func (r *registrar) VerifyInfo(_ netip.AddrPort, b []byte) error { return lisp.Verify(b, r.key) }

func (r *registrar) MapRegisters(_ time.Time, by natt.Route) []natt.Register {
	r.nonce++
	m := lisp.MapRegister{
		ProxyReply: true, WantMapNotify: true, XTRIDPresent: true, XTRID: r.xtrID, Nonce: r.nonce,
		Records: []lisp.EIDRecord{{
			TTL: 1440, MaskLen: uint8(r.eid.Bits()), EID: lisp.AddressFrom(r.eid.Addr()), Authoritative: true,
			Locators: []lisp.RLOCRecord{{Priority: 1, Weight: 100, Reachable: true, RLOC: lisp.AddressFrom(by.RTR)}},
		}},
	}
	b, err := m.AppendSigned(nil, r.key)
	if err != nil {
		return nil
	}
	return []natt.Register{{Server: mapServer, Nonce: r.nonce, Message: b}}
}

func (r *registrar) Notify(_ time.Time, _ natt.Route, _ netip.AddrPort, b []byte, _ bool) error {
	return lisp.Verify(b, r.key)
}

var mapServer = netip.MustParseAddrPort("198.51.100.1:4342")

// An XTR says what to send, is given what has arrived, and tells where it stands.
func ExampleXTR() {
	key := lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("secret")}
	r := &registrar{key: key, xtrID: lisp.XTRID{15: 1}, eid: netip.MustParsePrefix("192.0.2.1/32")}
	x, err := natt.NewXTR(natt.XTRConfig{
		Local: netip.MustParseAddr("10.0.0.2"), Servers: []netip.AddrPort{mapServer}, Registrar: r, XTRID: r.xtrID,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	server, err := natt.NewServer(natt.ServerConfig{
		RTRs: []netip.Addr{netip.MustParseAddr("203.0.113.9")},
		Site: func(uint32, netip.Prefix) (natt.SiteInfo, bool) { return natt.SiteInfo{Keys: []lisp.Key{key}}, true },
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	now := time.Now()
	x.Advance(now)
	d, _ := x.Next()
	fmt.Println(lisp.TypeOf(d.Bytes), d.Local, "to", d.Remote)

	// A NAT on the way gives it another source, and the reply its destination.
	answer, _ := server.Answer(nil, lisp.Datagram{Local: mapServer, Remote: netip.MustParseAddrPort("198.51.100.7:49152"), Bytes: d.Bytes})
	x.Handle(now, lisp.Datagram{Local: d.Local, Remote: mapServer, Bytes: answer})
	for e, ok := x.NextEvent(); ok; e, ok = x.NextEvent() {
		fmt.Println(e)
	}
	d, _ = x.Next()
	fmt.Println(lisp.TypeOf(d.Bytes), d.Local, "to", d.Remote)
	// Output:
	// Info 10.0.0.2:4342 to 198.51.100.1:4342
	// locator 10.0.0.2: behind NAT 198.51.100.7:49152, no RTR yet
	// ECM 10.0.0.2:4341 to 203.0.113.9:4342
}
