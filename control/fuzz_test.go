package control

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// FuzzEngine lets octets drive an engine: messages from several senders, some
// with a nonce that is outstanding, new locators, misses, and time. Whatever
// comes, the engine does not panic, its state stays bounded, it has no deadline
// in the past, and what it sends parses and, where there is a key, verifies.
func FuzzEngine(f *testing.F) {
	msg := func(m lisp.Message) []byte {
		b, err := m.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	deliver := func(op byte, b []byte) []byte {
		return append([]byte{op, byte(len(b) >> 8), byte(len(b))}, b...)
	}
	reply := msg(&lisp.MapReply{Records: []lisp.EIDRecord{record("198.51.100.0/24", 10, peerRLOC)}})
	neg := msg(&lisp.MapReply{Records: []lisp.EIDRecord{negative("198.51.0.0/16", 15, lisp.ActionSendMapRequest)}})
	probe := msg(&lisp.MapReply{Probe: true, Records: []lisp.EIDRecord{record("198.51.100.0/24", 10, peerRLOC)}})
	request := msg(mapRequest("192.0.2.1/32"))
	smr := mapRequest("192.0.2.1/32")
	smr.SMR = true
	inner, err := lisp.AppendInner(nil, lisp.Inner{Source: netip.AddrPortFrom(peerRLOC, 4342), Destination: netip.AddrPortFrom(eid4.Addr(), 4342), Payload: request})
	if err != nil {
		f.Fatal(err)
	}
	notify := msg(&lisp.MapNotify{Auth: lisp.Authentication{Data: make([]byte, 32)}, Records: []lisp.EIDRecord{record("192.0.2.1/32", 10, rloc4)}})
	cat := func(parts ...[]byte) (out []byte) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	f.Add(cat([]byte{2, 3}, []byte{3, 7}, deliver(5, reply), []byte{1, 40}, deliver(6, probe), []byte{1, 255, 1, 255}))
	f.Add(cat([]byte{2, 3}, []byte{3, 7}, deliver(5, neg), []byte{3, 9}, deliver(4, request), deliver(4, msg(smr))))
	f.Add(cat([]byte{2, 1}, deliver(4, msg(&lisp.EncapsulatedControl{Packet: inner})), []byte{2, 2, 1, 90}))
	f.Add(cat([]byte{2, 3}, []byte{3, 7}, deliver(5, reply), []byte{11, 1, 2, 1, 1, 30}, deliver(4, msg(smr)), []byte{10, 2, 1, 90, 10, 6, 2, 3, 1, 255}))
	echo := msg(&lisp.MapReply{EchoNonce: true, Records: []lisp.EIDRecord{record("198.51.100.0/24", 10, peerRLOC, rloc6)}})
	f.Add(cat([]byte{132, 3, 3, 7}, deliver(5, echo), []byte{12, 2 | 1<<3, 1, 40, 11, 1, 1, 255, 11, 1, 12, 7, 1, 60, 12, 6, 12, 3, 12, 0x44, 12, 0x45}))
	f.Add(cat([]byte{2, 3}, deliver(7, notify), []byte{1, 90, 8}, deliver(7, notify), []byte{1, 255, 9}))
	// With LISP-SEC, required and preferred: an answer, one by other functions, one without, a publication.
	good := append([]byte{0x9c}, reply...)
	f.Add(cat([]byte{0x4d, 0, 0, 2, 3, 3, 7}, deliver(5, reply), deliver(13, good), []byte{1, 20}, deliver(14, append([]byte{0}, reply...)), deliver(14, append([]byte{1}, neg...)), []byte{1, 255}))
	f.Add(cat([]byte{0x5a, 0, 0, 2, 3, 3, 7}, deliver(13, append([]byte{0}, reply...)), []byte{1, 15}, deliver(13, append([]byte{0x9d}, neg...)), []byte{1, 15}, deliver(5, reply)))

	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4096 {
			return
		}
		cfg := testConfig()
		cfg.MaxPending = 8
		cfg.MapReplyRate, cfg.MapReplyBurst = 50, 8
		cfg.Probe.MaxPaths = 8
		cfg.Cache.MaxEntries = 16
		cfg.SMR.MaxPeers = 4
		cfg.ProxyETRs = []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.77")}}}
		cfg.Rand = rand.NewChaCha8([32]byte{9})
		if len(in) > 0 && in[0] >= 0x80 {
			cfg.Closed = Closed{MapVersions: true, LocatorStatusBits: true, EchoNonce: true}
			cfg.Database[0].MapVersion = RandomMapVersion
		}
		if len(in) > 0 && in[0]&0x40 != 0 {
			fuzzProtected(&cfg, LISPSECMode(in[0]>>4&1)+LISPSECPreferred)
		}
		e, err := New(cfg)
		require.NoError(t, err)
		fz := fuzzer{t: t, e: e, now: start, told: make(map[netip.Addr]time.Time)}
		// Weeks of virtual time would take longer than a fuzzer waits.
		for len(in) > 0 && fz.advances < 20_000 {
			in = fz.step(in)
			fz.check()
		}
		for range 200 {
			at := e.Deadline()
			if at.IsZero() {
				break
			}
			fz.advanceTo(at)
			fz.check()
		}
	})
}

type fuzzer struct {
	t        *testing.T
	e        *Engine
	now      time.Time
	advances int
	// The last messages of each kind, for their nonces.
	request, probe, register lisp.Nonce
	told                     map[netip.Addr]time.Time // when an SMR went there

	otk          lisp.OTK // of request
	subscription lisp.Nonce
	about        lisp.RequestRecord
}

// step does what the first octets say, and returns the rest.
func (f *fuzzer) step(in []byte) []byte {
	op, in := in[0], in[1:]
	arg := byte(0)
	if op%15 < 4 || op%15 > 9 && op%15 < 13 {
		if len(in) > 0 {
			arg, in = in[0], in[1:]
		}
	}
	switch op % 15 {
	case 0: // a clock that jumps
		f.now = f.now.Add(time.Duration(int8(arg)) * time.Hour)
		f.e.Advance(f.now)
	case 1:
		f.advanceTo(f.now.Add(time.Duration(arg) * time.Duration(arg) * 10 * time.Millisecond))
	case 2:
		ls := locals()
		for i := range ls {
			ls[i].Up = arg>>i&1 != 0
		}
		f.e.SetLocals(f.now, ls[:min(int(arg>>2&3), 2)])
		if arg>>2 == 0 {
			f.e.SetLocals(f.now, ls)
		}
	case 3:
		f.e.Resolve(f.now, []mapcache.Key{
			mapcache.HostKey(0, netip.AddrFrom4([4]byte{198, 51, 100, arg})),
			mapcache.HostKey(uint32(arg>>7), netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 15: arg})),
		})
	case 4:
		in = f.deliver(in, netip.AddrPortFrom(peerRLOC, 4342), 0, false)
	case 5:
		in = f.deliver(in, mr1, f.request, false)
	case 6:
		in = f.deliver(in, netip.AddrPortFrom(peerRLOC, 4342), f.probe, false)
	case 7:
		in = f.deliver(in, msAddr, f.register, true)
	case 8:
		in = f.deliver(in, msAddr, 0, true)
	case 9:
		f.e.Withdraw(f.now)
	case 13:
		in = f.deliverProtected(in)
	case 14:
		in = f.publish(in)
	case 10:
		db := testConfig().Database
		db = append(db, DatabaseMapping{Key: key("198.51.0.0/17"), TTL: time.Duration(arg+1) * time.Minute},
			DatabaseMapping{Key: mapcache.HostKey(uint32(arg>>6), netip.AddrFrom4([4]byte{192, 0, 2, arg}))})
		db = db[arg&1 : int(arg&1)+min(3, int(arg>>1&3))]
		if err := f.e.SetDatabase(f.now, db); err != nil {
			require.ErrorIs(f.t, err, ErrConfig)
		}
	case 11:
		for i := range arg & 3 {
			f.e.AddUsage(f.now, mapcache.Usage{Locator: mapcache.Locator{Addr: netip.AddrFrom4([4]byte{203, 0, 113, arg>>2 + i})}, PacketsIn: 1})
		}
		f.e.AddUsage(f.now, mapcache.Usage{Locator: mapcache.Locator{Addr: peerRLOC}, PacketsOut: uint64(arg & 1)})
	case 12:
		d := mapcache.Discovery{
			Kind: mapcache.DiscoveryKind(arg & 7), LSBs: uint32(arg >> 3), MapVersion: uint16(arg) << 4,
			Locator: mapcache.Locator{Addr: peerRLOC}, Source: netip.AddrFrom4([4]byte{198, 51, 100, arg}),
			Key: mapcache.HostKey(uint32(arg>>7), netip.AddrFrom4([4]byte{198, 51, 100, arg >> 3})),
		}
		switch {
		case arg&0x48 == 0x48:
			d.Locator.Addr = netip.AddrFrom4([4]byte{203, 0, 113, arg})
		case arg&0x40 != 0:
			d.Key = hostKey(eid4)
		}
		f.e.Discover(f.now, d)
	}
	return in
}

// deliver hands over a message whose length comes first, with a nonce and with
// a good signature if that is wanted.
func (f *fuzzer) deliver(in []byte, from netip.AddrPort, nonce lisp.Nonce, sign bool) []byte {
	if len(in) < 2 {
		return nil
	}
	n := min(int(binary.BigEndian.Uint16(in)), len(in)-2)
	b, rest := append([]byte(nil), in[2:2+n]...), in[2+n:]
	if nonce != 0 && len(b) >= 12 {
		binary.BigEndian.PutUint64(b[4:], uint64(nonce))
	}
	if sign {
		_ = lisp.Sign(b, testKey) // if it can be signed at all
	}
	f.e.Handle(f.now, lisp.Datagram{Local: netip.AddrPortFrom(rloc4, 4342), Remote: from, Bytes: b})
	return rest
}

func (f *fuzzer) advanceTo(at time.Time) {
	for steps := 0; ; steps++ {
		require.Less(f.t, steps, 100_000, "the engine never rests")
		d := f.e.Deadline()
		if d.IsZero() || d.After(at) {
			break
		}
		if d.After(f.now) {
			f.now = d
		}
		f.e.Advance(f.now)
		f.advances++
		if d = f.e.Deadline(); !d.IsZero() {
			require.False(f.t, d.Before(f.now), "a deadline in the past after Advance")
		}
		f.drain()
	}
	if at.After(f.now) {
		f.now = at
	}
}

func (f *fuzzer) drain() {
	for d, ok := f.e.Next(); ok; d, ok = f.e.Next() {
		require.True(f.t, d.Remote.IsValid())
		require.True(f.t, d.Local.Addr().IsValid(), "sent from a locator of ours")
		require.Equal(f.t, d.Remote.Addr().Is4(), d.Local.Addr().Is4())
		if d.Remote.Addr().Is4() {
			require.LessOrEqual(f.t, len(d.Bytes), 576-28)
		} else {
			require.LessOrEqual(f.t, len(d.Bytes), 1280-48)
		}
		m, err := lisp.Parse(d.Bytes)
		require.NoError(f.t, err)
		switch m := m.(type) {
		case *lisp.EncapsulatedControl:
			in, err := m.Inner()
			require.NoError(f.t, err)
			var q lisp.MapRequest
			require.NoError(f.t, q.DecodeFromBytes(in.Payload))
			require.Len(f.t, q.Records, 1)
			require.False(f.t, q.Probe)
			f.seeECM(m, &q)
		case *lisp.MapRequest:
			require.NotEqual(f.t, m.Probe, m.SMR, "anything else goes to the mapping system")
			require.Len(f.t, m.Records, 1)
			if m.Probe {
				f.probe = m.Nonce
				break
			}
			// What is known to kill peers.
			require.False(f.t, m.SourceEID.IsZero())
			iid, eid, ok := m.SourceEID.EID()
			require.True(f.t, ok)
			piid, p, ok := m.Records[0].Prefix()
			require.True(f.t, ok)
			require.Equal(f.t, eid.Is4(), p.Addr().Is4())
			require.Equal(f.t, iid, piid)
			if at, ok := f.told[d.Remote.Addr()]; ok {
				require.GreaterOrEqual(f.t, f.now.Sub(at), smrInterval)
			}
			f.told[d.Remote.Addr()] = f.now
		case *lisp.MapRegister:
			require.NoError(f.t, lisp.Verify(d.Bytes, testKey))
			require.Greater(f.t, m.Nonce, lisp.Nonce(0))
			f.register = m.Nonce
		case *lisp.MapNotifyAck:
			require.NoError(f.t, lisp.Verify(d.Bytes, testKey))
		case *lisp.MapReply:
		default:
			require.Fail(f.t, "sent", "%T", m)
		}
	}
	for ev, ok := f.e.NextEvent(); ok; ev, ok = f.e.NextEvent() {
		require.NotEmpty(f.t, ev.String())
	}
	f.e.Publish()
}

func (f *fuzzer) check() {
	f.drain()
	s := f.e.Stats()
	require.LessOrEqual(f.t, s.Pending, 16)
	require.LessOrEqual(f.t, s.Paths, 8)
	require.LessOrEqual(f.t, s.CacheEntries, 16)
	require.LessOrEqual(f.t, len(f.e.requests), 16*11+8*3)
	require.LessOrEqual(f.t, len(f.e.targets), 16*255)
	// One for what there is, and one for each change of the last three minutes.
	require.LessOrEqual(f.t, s.Registrations, 1+int(f.e.registerNonce-f.e.firstNonce)+1)
	require.LessOrEqual(f.t, len(f.e.smr.peers), 4)
	closed := 0
	if c := f.e.closed; c != nil {
		require.LessOrEqual(f.t, len(c.sites), s.CacheEntries)
		require.LessOrEqual(f.t, len(c.stale), maxStale)
		require.LessOrEqual(f.t, len(c.refused), len(c.stale))
		require.LessOrEqual(f.t, len(c.echoes), maxEchoes)
		require.LessOrEqual(f.t, len(c.nonces), len(c.echoes))
		closed = 1 + len(c.stale) + len(c.echoes)
		for _, l := range f.e.Signals().Locals {
			require.False(f.t, mapcache.NewerMapVersion(l.Oldest, l.MapVersion))
			require.LessOrEqual(f.t, l.MapVersion, uint16(0xfff))
		}
	}
	require.LessOrEqual(f.t, len(f.e.timers.h), 16+8+s.Registrations+1+4+1+closed+s.Subscriptions)
	f.checkProtected(s)
	for i, d := range f.e.timers.h {
		require.Equal(f.t, i+1, d.t.index)
	}
}
