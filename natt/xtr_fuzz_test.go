package natt

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// FuzzXTR drives an XTR by a script: time goes by, the Map-Server and the RTR
// answer rightly or by made-up messages, and everything may be told anew. It checks
// that nothing but a verified answer brings the machine to another state, that
// memory stays bounded, that it goes on, and what it sends.
func FuzzXTR(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7})
	f.Add([]byte{1, 2, 0x90, 2, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 1, 2})
	f.Add(append([]byte{1, 2, 3, 3, 40}, dataMapNotify(f, &lisp.MapNotify{Nonce: 1}, worldKey)...))
	f.Add(append([]byte{0x10, 4, 60}, infoReplyTo(f, 1, worldEID, worldMS, worldRTR(0), worldKey)...))
	f.Add(append([]byte{0x20, 1, 2, 3, 60}, infoReplyTo(f, 1, worldEID, worldMS, worldRTR(0), worldKey)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) == 0 {
			return
		}
		r := &worldRegistrar{key: worldKey}
		x, err := NewXTR(XTRConfig{
			Variant: Variant(script[0]>>4) % numVariants, Local: worldLocal, Servers: []netip.AddrPort{worldMS}, Registrar: r,
			XTRID: worldXTRID, Rand: rand.NewChaCha8([32]byte{1}), Always: script[0]&8 != 0,
		})
		require.NoError(t, err)
		fz := xtrFuzz{t: t, x: x, now: worldStart, reg: r}
		x.Advance(fz.now)
		fz.drain()
		for s := script[1:]; len(s) > 0; {
			s = fz.step(s)
			fz.drain()
			fz.check()
		}
		// It never gets stuck.
		if !x.withdrawing {
			require.False(t, x.Deadline().IsZero())
			require.Less(t, x.Deadline().Sub(fz.now), 2*time.Hour)
		}
	})
}

type xtrFuzz struct {
	t    *testing.T
	x    *XTR
	now  time.Time
	reg  *worldRegistrar
	last []lisp.Datagram // that it sent
}

// step takes one command from s and returns the rest.
func (f *xtrFuzz) step(s []byte) []byte {
	op := s[0]
	s = s[1:]
	if op&0x80 != 0 {
		f.now = f.now.Add(time.Duration(op&0x7f) * 500 * time.Millisecond)
		if op == 0xff {
			f.now = f.now.Add(-time.Hour)
		}
		f.x.Advance(f.now)
		return s
	}
	switch op & 7 {
	case 0:
		if at := f.x.Deadline(); !at.IsZero() && at.After(f.now) {
			f.now = at
		}
		f.x.Advance(f.now)
	case 1, 2: // what was asked last is answered, rightly
		before := f.x.Stats()
		if len(f.last) > 0 {
			d := f.last[int(op>>3)%len(f.last)]
			f.answer(d)
		}
		f.changed(before)
	case 3:
		f.x.Renew(f.now)
	case 4: // anything, from anybody
		n := min(len(s), 1+int(op>>3)*8)
		before := f.x.Binding()
		stats := f.x.Stats()
		f.x.Handle(f.now, lisp.Datagram{
			Local:  netip.AddrPortFrom(worldLocal, lisp.DataPort+uint16(op>>3&1)),
			Remote: netip.AddrPortFrom(worldRTR(int(op>>4&1)), lisp.ControlPort), Bytes: bytes.Clone(s[:n]),
		})
		after := f.x.Stats()
		if f.x.cfg.Variant != LispersNet && after.InfoRepliesReceived == stats.InfoRepliesReceived && after.NotifiesReceived == stats.NotifiesReceived {
			b := f.x.Binding()
			require.Equal(f.t, before.State, b.State)
			require.Equal(f.t, before.RTR, b.RTR)
		}
		s = s[n:]
	case 5:
		if op>>3 == 5 {
			f.x.Restart(f.now)
		}
	case 6:
		if op>>3 == 6 {
			f.x.Withdraw(f.now)
		}
	case 7:
		f.reg.none = op>>3&1 != 0
	}
	return s
}

// answer is what Map-Server and RTR make of d.
func (f *xtrFuzz) answer(d lisp.Datagram) {
	var info lisp.InfoRequest
	var ecm lisp.EncapsulatedControl
	switch {
	case info.DecodeFromBytes(d.Bytes) == nil:
		global := netip.AddrPortFrom(worldNAT, uint16(1024+f.x.random()%4))
		if f.x.random()%8 == 0 {
			global = d.Local
		}
		b := infoReplyTo(f.t, info.Nonce, worldEID, global, worldRTR(int(f.x.random()%3)), worldKey)
		f.x.Handle(f.now, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: b})
	case ecm.DecodeFromBytes(d.Bytes) == nil:
		in, err := ecm.Inner()
		require.NoError(f.t, err)
		b := dataMapNotify(f.t, f.notify(in.Payload), worldKey)
		f.x.Handle(f.now, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: b})
	case lisp.TypeOf(d.Bytes) == lisp.TypeMapRegister:
		b, err := f.notify(d.Bytes).AppendSigned(nil, worldKey)
		require.NoError(f.t, err)
		f.x.Handle(f.now, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: b})
	}
}

func (f *xtrFuzz) notify(register []byte) *lisp.MapNotify {
	require.NoError(f.t, lisp.Verify(register, worldKey))
	var m lisp.MapRegister
	require.NoError(f.t, m.UnmarshalBinary(register))
	return &lisp.MapNotify{Nonce: m.Nonce, XTRIDPresent: true, XTRID: m.XTRID, Records: m.Records}
}

// changed checks that an answer that was taken shows.
func (f *xtrFuzz) changed(before XTRStats) {
	if f.x.Stats().NotifiesReceived > before.NotifiesReceived && len(f.x.rtrs) > 0 && f.x.current != nil {
		require.True(f.t, f.x.Binding().State.NATed())
	}
}

// drain takes what it has to send, which is remembered for answer.
func (f *xtrFuzz) drain() {
	for d, ok := f.x.Next(); ok; d, ok = f.x.Next() {
		require.Equal(f.t, worldLocal, d.Local.Addr())
		require.True(f.t, d.Remote.IsValid())
		if len(f.last) >= 32 {
			f.last = f.last[1:]
		}
		d.Bytes = bytes.Clone(d.Bytes)
		f.last = append(f.last, d)
	}
	for ev, ok := f.x.NextEvent(); ok; ev, ok = f.x.NextEvent() {
		require.NotEmpty(f.t, ev.String())
		require.NotEqual(f.t, ev.Old, ev.New)
	}
}

func (f *xtrFuzz) check() {
	x := f.x
	require.LessOrEqual(f.t, len(x.asked), maxNonces)
	require.LessOrEqual(f.t, len(x.sent), maxNonces)
	require.LessOrEqual(f.t, len(x.rtrs), maxListed)
	require.LessOrEqual(f.t, len(x.racing), maxRace)
	require.GreaterOrEqual(f.t, x.keepAlive, x.cfg.MinKeepAlive)
	b := x.Binding()
	if b.State == Registered || b.State == Silent {
		require.True(f.t, b.RTR.IsValid())
	}
	if b.State == Public || b.State == Detecting || b.State == Unanswered || b.State == NoRTR {
		require.False(f.t, b.RTR.IsValid(), b.State)
		require.True(f.t, x.registerAt.IsZero())
	}
	require.NotEmpty(f.t, b.Text(f.now))
	require.Equal(f.t, x.cfg.Variant == LispersNet, x.speak.infoPort(x) == lisp.DataPort)
}
