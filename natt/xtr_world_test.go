package natt

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
)

// xtrWorld is an XTR, behind NATs or not, a Map-Server and some RTRs, in virtual
// time.
type xtrWorld struct {
	t     *testing.T
	net   *netsim.Network
	ms    *worldServer
	msAt  *netsim.Interface
	rtrs  []*RTR
	rtrAt []*netsim.Interface
	nodes []*netsim.Node // of the RTRs
	xtr   *XTR
	node  *netsim.Node
	at    *netsim.Interface
	reg   *worldRegistrar
	told  []BindingChanged
	sent  []netsim.Record // from the xTR
}

var (
	worldStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	worldKey   = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("site")}
	worldMSKey = lisp.Key{ID: 2, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("rtr")}
	worldMS    = netip.MustParseAddrPort("198.51.100.1:4342")
	worldNAT   = netip.MustParseAddr("203.0.113.7")
	worldLocal = netip.MustParseAddr("10.0.0.2")
	worldEID   = netip.MustParsePrefix("192.0.2.1/32")
	worldXTRID = lisp.XTRID{15: 7}
)

func worldRTR(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(11 + i)}) }

// newXTRWorld makes a world with so many RTRs. connect attaches the xTR's node.
func newXTRWorld(t *testing.T, seed uint64, rtrs int, link netsim.Link, cfg XTRConfig, connect func(w *xtrWorld) *netsim.Interface) *xtrWorld {
	t.Helper()
	w := &xtrWorld{t: t}
	w.net = netsim.New(netsim.Config{Seed: seed, Start: worldStart, Trace: func(r netsim.Record) {
		if r.Kind == netsim.Sent && r.Where == "xtr" {
			r.Bytes = append([]byte(nil), r.Bytes...)
			w.sent = append(w.sent, r)
		}
	}})
	w.ms = &worldServer{t: t, paths: map[netip.Addr]int{}}
	var offered []netip.Addr
	for i := range rtrs {
		offered = append(offered, worldRTR(i))
		r, err := NewRTR(RTRConfig{
			MapServers: []RTRMapServer{{Addr: worldMS.Addr(), Key: worldMSKey, Variant: cfg.Variant}},
			RLOCs:      []netip.Addr{worldRTR(i)}, Rand: rand.NewChaCha8([32]byte{byte(seed), byte(i)}),
			Lifetime: time.Minute,
		})
		require.NoError(t, err)
		nd := w.net.AddNode("rtr")
		l := link
		l.Latency += time.Duration(10-3*i) * time.Millisecond // the later the nearer
		w.rtrAt = append(w.rtrAt, nd.AddInterface(w.net.Internet(), l, worldRTR(i)))
		nd.Attach(r)
		w.rtrs, w.nodes = append(w.rtrs, r), append(w.nodes, nd)
	}
	var err error
	w.ms.info, err = NewServer(ServerConfig{RTRs: offered, Site: func(uint32, netip.Prefix) (SiteInfo, bool) {
		return SiteInfo{Name: "lab", Keys: []lisp.Key{worldKey}}, !w.ms.deaf
	}})
	require.NoError(t, err)
	ms := w.net.AddNode("ms")
	w.msAt = ms.AddInterface(w.net.Internet(), link, worldMS.Addr())
	ms.Attach(w.ms)

	w.node = w.net.AddNode("xtr")
	w.at = connect(w)
	w.reg = &worldRegistrar{key: worldKey}
	cfg.Servers, cfg.Registrar, cfg.XTRID = []netip.AddrPort{worldMS}, w.reg, worldXTRID
	cfg.Rand = rand.NewChaCha8([32]byte{byte(seed), 99})
	w.start(cfg)
	return w
}

func (w *xtrWorld) start(cfg XTRConfig) {
	cfg.Local = w.at.Addrs()[0]
	var err error
	w.xtr, err = NewXTR(cfg)
	require.NoError(w.t, err)
	w.reg.variant = cfg.Variant
	w.node.AfterStep(func(time.Time) {
		for e, ok := w.xtr.NextEvent(); ok; e, ok = w.xtr.NextEvent() {
			w.told = append(w.told, e)
		}
	})
	w.node.Attach(w.xtr)
	w.node.Attach(pingCounter{w.reg})
	w.node.Step(w.xtr.Advance)
}

// behind connects the xTR through a NAT.
func behind(link netsim.Link, cfg netsim.NATConfig, nat **netsim.NAT) func(w *xtrWorld) *netsim.Interface {
	return func(w *xtrWorld) *netsim.Interface {
		n := w.net.AddNAT("nat", w.net.Internet(), link, worldNAT, cfg)
		if nat != nil {
			*nat = n
		}
		return w.node.AddInterface(n.Inside(), netsim.Link{}, worldLocal)
	}
}

func (w *xtrWorld) text() string {
	b := w.xtr.Binding()
	return b.Text(w.node.Now())
}

// reachable reports whether what an RTR would send to our EID arrives now: RTR i
// has a relay, and the NAT lets it pass.
func (w *xtrWorld) reachable(i int) bool {
	for _, r := range w.rtrs[i].Relays() {
		before := w.reg.pings
		w.nodes[i].Send(lisp.Datagram{
			Local: netip.AddrPortFrom(worldRTR(i), lisp.ControlPort), Remote: r.Global, Bytes: worldPing,
		})
		w.net.Run(time.Second)
		if w.reg.pings > before {
			return true
		}
	}
	return false
}

// worldPing stands for data from an RTR.
var worldPing = []byte{0x08, 0, 0, 0, 0, 0, 1, 0}

// pingCounter counts them.
type pingCounter struct{ *worldRegistrar }

func (p pingCounter) Handle(_ time.Time, d lisp.Datagram) bool {
	if d.Local.Port() == lisp.DataPort && bytes.Equal(d.Bytes, worldPing) {
		p.pings++
	}
	return true
}
func (pingCounter) Advance(time.Time)           {}
func (pingCounter) Deadline() time.Time         { return time.Time{} }
func (pingCounter) Next() (lisp.Datagram, bool) { return lisp.Datagram{}, false }

// worldRegistrar registers one EID-Prefix.
type worldRegistrar struct {
	key     lisp.Key
	eid     netip.Prefix // default worldEID
	xtrID   lisp.XTRID   // default worldXTRID
	variant Variant
	nonce   lisp.Nonce
	none    bool // no EID-Prefix
	pings   int
	news    int // unsolicited Map-Notifies
	routes  []Route
}

func (r *worldRegistrar) Site(netip.AddrPort) (uint32, netip.Prefix, bool) {
	return 0, r.prefix(), !r.none
}

func (r *worldRegistrar) prefix() netip.Prefix {
	if !r.eid.IsValid() {
		return worldEID
	}
	return r.eid
}

func (r *worldRegistrar) SignInfo(b []byte, _ netip.AddrPort, m *lisp.InfoRequest) ([]byte, error) {
	return m.AppendSigned(b, r.key)
}

func (r *worldRegistrar) VerifyInfo(_ netip.AddrPort, b []byte) error { return lisp.Verify(b, r.key) }

func (r *worldRegistrar) MapRegisters(_ time.Time, rt Route) []Register {
	r.nonce++
	r.routes = append(r.routes, rt)
	ttl := uint32(10)
	if rt.Withdraw {
		ttl = 0
	}
	id := r.xtrID
	def(&id, worldXTRID)
	m := lisp.MapRegister{
		ProxyReply: true, WantMapNotify: true, XTRIDPresent: true, XTRID: id, Nonce: r.nonce, RTR: rt.Variant == Old,
		Records: []lisp.EIDRecord{{
			TTL: ttl, MaskLen: 32, EID: lisp.AddressFrom(r.prefix().Addr()), Authoritative: true,
			Locators: []lisp.RLOCRecord{{Priority: 1, Weight: 100, MPriority: 255, Reachable: true, RLOC: lisp.AddressFrom(rt.RTR)}},
		}},
	}
	b, err := m.AppendSigned(nil, r.key)
	if err != nil {
		panic(err)
	}
	return []Register{{Server: worldMS, Nonce: r.nonce, Message: b}}
}

func (r *worldRegistrar) Notify(_ time.Time, _ Route, _ netip.AddrPort, b []byte, solicited bool) error {
	if err := lisp.Verify(b, r.key); err != nil {
		return err
	}
	if !solicited {
		r.news++
	}
	return nil
}

// worldServer is the Map-Server: Info-Replies, and Map-Notifies by the RTR.
type worldServer struct {
	t      *testing.T
	info   *Server
	deaf   bool // knows no site
	silent bool // answers nothing
	// anyOrder takes Map-Registers as they come, whatever their nonces.
	anyOrder bool
	last     lisp.MapRegister
	path     Path
	paths    map[netip.Addr]int // Map-Registers by RTR
	out      []lisp.Datagram
}

func (s *worldServer) Handle(now time.Time, d lisp.Datagram) bool {
	if s.silent {
		return true
	}
	if lisp.TypeOf(d.Bytes) == lisp.TypeInfo {
		return s.info.Handle(now, d)
	}
	path, msg := Path{Variant: Old, RTR: d.Remote.Addr()}, d.Bytes
	var ecm lisp.EncapsulatedControl
	if ecm.DecodeFromBytes(d.Bytes) == nil {
		in, err := ecm.Inner()
		require.NoError(s.t, err)
		require.True(s.t, ecm.Relayed)
		path, msg = Path{Variant: Draft19, RTR: d.Remote.Addr(), Local: in.Source.Addr()}, in.Payload
	}
	var m lisp.MapRegister
	if m.DecodeFromBytes(msg) != nil || lisp.Verify(msg, worldKey) != nil {
		return true // no answer to who does not have the key
	}
	s.paths[d.Remote.Addr()]++
	if m.Nonce < s.last.Nonce && !s.anyOrder {
		return true
	}
	require.NoError(s.t, m.UnmarshalBinary(msg))
	s.last, s.path = m, path
	s.notify(m.Nonce)
	return true
}

// notify sends a Map-Notify the way that the last Map-Register came.
func (s *worldServer) notify(nonce lisp.Nonce) {
	m := s.last
	n := lisp.MapNotify{Nonce: nonce, XTRIDPresent: true, XTRID: m.XTRID, Records: m.Records, RTRAuth: s.path.Variant == Old}
	b, err := n.AppendSigned(nil, worldKey)
	require.NoError(s.t, err)
	b, err = s.path.Append(nil, worldMS.Addr(), b, worldMSKey)
	require.NoError(s.t, err)
	s.out = append(s.out, lisp.Datagram{Local: worldMS, Remote: s.path.Destination(), Bytes: b})
}

func (s *worldServer) Advance(now time.Time) { s.info.Advance(now) }
func (s *worldServer) Deadline() time.Time   { return s.info.Deadline() }

func (s *worldServer) Next() (lisp.Datagram, bool) {
	if d, ok := s.info.Next(); ok {
		return d, true
	}
	if len(s.out) == 0 {
		return lisp.Datagram{}, false
	}
	d := s.out[0]
	s.out = s.out[1:]
	return d, true
}
