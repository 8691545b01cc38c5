package control

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// FuzzEngineNAT lets octets drive an engine whose locators are behind NATs or not,
// as the Map-Server's Info-Replies say: locators come and go, what it sends is
// answered or not, the database changes. Its state stays bounded, and an address
// behind a NAT is told to nobody but an RTR.
func FuzzEngineNAT(f *testing.F) {
	f.Add([]byte{0, 3, 1, 1, 1, 1, 1, 1, 0x90, 1, 1, 1, 1})
	f.Add([]byte{0, 7, 0x81, 1, 9, 17, 25, 0x90, 1, 9, 0x0b, 2, 0, 5, 1, 1, 4, 1, 1, 1})
	f.Add([]byte{0, 5, 1, 1, 1, 1, 0xff, 0xff, 0xff, 1, 1, 3, 12, 1, 1})
	f.Add([]byte{0, 15, 1, 9, 17, 25, 2, 1, 9, 17, 3, 1, 1, 1, 6, 1, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) == 0 || len(script) > 2048 {
			return
		}
		cfg := testConfig()
		cfg.XTRID = lisp.XTRID{1}
		cfg.NAT = NATConfig{Enable: true, Variant: natt.Variant(script[0] & 1)}
		cfg.MaxPending, cfg.Probe.MaxPaths, cfg.Cache.MaxEntries = 8, 8, 16
		cfg.Rand = rand.NewChaCha8([32]byte{9})
		e, err := New(cfg)
		require.NoError(t, err)
		fz := natFuzzer{t: t, e: e, now: start, key: cfg.MapServers[0].Key, behind: make(map[netip.Addr]bool)}
		for s := script; len(s) > 0; {
			s = fz.step(s)
			fz.drain()
			fz.check()
		}
	})
}

type natFuzzer struct {
	t      *testing.T
	e      *Engine
	now    time.Time
	key    lisp.Key
	behind map[netip.Addr]bool // as the last Info-Reply for it said
	last   []lisp.Datagram
	count  int
}

var natFuzzLocals = []netip.Addr{
	netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr("2001:db8:9::2"),
}

func (f *natFuzzer) step(s []byte) []byte {
	op := s[0]
	s = s[1:]
	arg := func() byte {
		if len(s) == 0 {
			return 0
		}
		b := s[0]
		s = s[1:]
		return b
	}
	if op&0x80 != 0 {
		f.now = f.now.Add(time.Duration(op&0x7f) * time.Second)
		f.e.Advance(f.now)
		return s
	}
	switch op & 7 {
	case 0:
		up := arg()
		var ls []mapcache.Local
		for i, a := range natFuzzLocals {
			if up>>i&1 != 0 {
				ls = append(ls, mapcache.Local{IfIndex: i + 1, Addr: a, Priority: 1, Weight: 100, Up: up>>(i+4)&1 == 0})
			}
		}
		f.e.SetLocals(f.now, ls)
	case 1, 2:
		if len(f.last) > 0 {
			f.answer(f.last[int(op>>3)%len(f.last)])
		}
	case 3:
		db := testConfig().Database
		if err := f.e.SetDatabase(f.now, db[:int(arg())%(len(db)+1)]); err != nil {
			require.ErrorIs(f.t, err, ErrConfig)
		}
	case 4:
		f.e.Resolve(f.now, []mapcache.Key{mapcache.HostKey(0, netip.AddrFrom4([4]byte{198, 51, 100, arg()}))})
	case 5:
		f.e.AddUsage(f.now, mapcache.Usage{Locator: mapcache.Locator{Addr: natFuzzRTR(int(arg()))}, PacketsIn: 1})
	case 6:
		if op>>3 == 13 {
			f.e.Withdraw(f.now)
		}
	case 7:
		n := min(len(s), int(op>>3)*8)
		f.e.Handle(f.now, lisp.Datagram{
			Local: netip.AddrPortFrom(natFuzzLocals[0], lisp.DataPort), Remote: netip.AddrPortFrom(natFuzzRTR(0), 4342), Bytes: bytes.Clone(s[:n]),
		})
		s = s[n:]
	}
	return s
}

func natFuzzRTR(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(11 + i&1)}) }

// answer is what Map-Server and RTR make of d.
func (f *natFuzzer) answer(d lisp.Datagram) {
	f.count++
	var info lisp.InfoRequest
	var ecm lisp.EncapsulatedControl
	switch {
	case info.DecodeFromBytes(d.Bytes) == nil:
		require.NoError(f.t, lisp.Verify(d.Bytes, f.key))
		global := d.Local
		f.behind[d.Local.Addr()] = f.count%4 != 0
		if f.count%4 != 0 {
			global = netip.MustParseAddrPort("203.0.113.7:49152")
		}
		nat, err := lisp.LCAFAddress(&lisp.NATTraversal{
			ETRPort: global.Port(), GlobalETR: lisp.AddressFrom(global.Addr()), RTRs: []lisp.Address{lisp.AddressFrom(natFuzzRTR(f.count / 7))},
		})
		require.NoError(f.t, err)
		m := lisp.InfoReply{Nonce: info.Nonce, TTL: 60, MaskLen: info.MaskLen, EID: info.EID, NAT: nat}
		b, err := m.AppendSigned(nil, f.key)
		require.NoError(f.t, err)
		f.e.Handle(f.now, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: b})
	case ecm.DecodeFromBytes(d.Bytes) == nil && ecm.RTR:
		in, err := ecm.Inner()
		require.NoError(f.t, err)
		b := binary.BigEndian.AppendUint64(nil, 0x08000000<<32|lisp.InstanceIDControl<<8)
		b, err = lisp.AppendInner(b, lisp.Inner{Source: in.Destination, Destination: netip.AddrPortFrom(d.Local.Addr(), 4342), Payload: f.notify(in.Payload)})
		require.NoError(f.t, err)
		f.e.Handle(f.now, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: b})
	case lisp.TypeOf(d.Bytes) == lisp.TypeMapRegister:
		f.e.Handle(f.now, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: f.notify(d.Bytes)})
	}
}

func (f *natFuzzer) notify(register []byte) []byte {
	require.NoError(f.t, lisp.Verify(register, f.key))
	var m lisp.MapRegister
	require.NoError(f.t, m.UnmarshalBinary(register))
	n := lisp.MapNotify{Nonce: m.Nonce, XTRIDPresent: m.XTRIDPresent, XTRID: m.XTRID, Records: m.Records}
	b, err := n.AppendSigned(nil, f.key)
	require.NoError(f.t, err)
	return b
}

// hidden reports whether a is behind a NAT, as far as the engine can know.
func (f *natFuzzer) hidden(a netip.Addr) bool {
	x := f.e.nat.find(a)
	return x != nil && x.xtr.Binding().State.NATed()
}

// drain takes what it has to send, and looks whom it tells what.
func (f *natFuzzer) drain() {
	for d, ok := f.e.Next(); ok; d, ok = f.e.Next() {
		d.Bytes = bytes.Clone(d.Bytes)
		m, err := lisp.Parse(d.Bytes)
		require.NoError(f.t, err)
		switch m := m.(type) {
		case *lisp.MapRegister:
			require.False(f.t, f.hidden(d.Local.Addr()), "registered directly from behind a NAT")
			for _, r := range m.Records {
				for _, l := range r.Locators {
					ip, _ := l.RLOC.IP()
					require.False(f.t, m.Records[0].TTL != 0 && f.hidden(ip), "%v", m)
				}
			}
		case *lisp.MapRequest:
			for _, a := range m.ITRRLOCs {
				ip, _ := a.IP()
				require.False(f.t, f.hidden(ip), "%v", m)
			}
		case *lisp.EncapsulatedControl:
			require.Equal(f.t, m.RTR, d.Local.Port() == lisp.DataPort)
		}
		if len(f.last) >= 32 {
			f.last = f.last[1:]
		}
		f.last = append(f.last, d)
	}
	for ev, ok := f.e.NextEvent(); ok; ev, ok = f.e.NextEvent() {
		require.NotEmpty(f.t, ev.String())
	}
	f.e.Publish()
}

func (f *natFuzzer) check() {
	n := f.e.nat
	require.LessOrEqual(f.t, len(n.nonces), maxNATNonces)
	require.Len(f.t, n.olds, len(n.nonces))
	require.LessOrEqual(f.t, len(n.xtrs), len(natFuzzLocals))
	require.True(f.t, slices.IsSortedFunc(n.xtrs, func(a, b *natLocal) int { return a.Addr.Compare(b.Addr) }))
	for _, l := range f.e.locals {
		require.False(f.t, l.Up && f.hidden(l.Addr))
	}
	for k := range n.defaults {
		ent, ok := f.e.cache.Get(k)
		require.True(f.t, ok)
		require.NotEmpty(f.t, ent.RLOCs)
	}
	require.True(f.t, f.e.withdrawing || (len(n.defaults) > 0) == (len(n.defaultRLOCs()) > 0 && !f.e.resolves()))
	require.LessOrEqual(f.t, len(f.e.registrations), 64)
}
