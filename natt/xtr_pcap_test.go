package natt

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// oorRegistrar stands for the node of OpenOverlayRouter: it registers what that did.
type oorRegistrar struct {
	t    *testing.T
	next []lisp.Datagram // its Encapsulated Map-Registers
	got  []lisp.MapNotify
	late int // Map-Notifies that answer nothing
}

func (*oorRegistrar) Site(netip.AddrPort) (uint32, netip.Prefix, bool) {
	return 0, netip.MustParsePrefix("172.16.3.3/32"), true
}

func (*oorRegistrar) SignInfo(b []byte, _ netip.AddrPort, m *lisp.InfoRequest) ([]byte, error) {
	return m.AppendSigned(b, lisp.Key{Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("secret")})
}

func (*oorRegistrar) VerifyInfo(_ netip.AddrPort, b []byte) error { return lisp.Verify(b, oorSite) }

func (r *oorRegistrar) MapRegisters(time.Time, Route) []Register {
	in, m := innerRegister(r.t, r.next[0].Bytes)
	r.next = r.next[1:]
	return []Register{{Server: in.Destination, Nonce: m.Nonce, Message: in.Payload}}
}

func (r *oorRegistrar) Notify(_ time.Time, _ Route, server netip.AddrPort, b []byte, solicited bool) error {
	assert.Equal(r.t, oorMS, server.Addr())
	if !solicited {
		r.late++
		return nil
	}
	if err := lisp.Verify(b, oorSite); err != nil {
		return err
	}
	var m lisp.MapNotify
	require.NoError(r.t, m.UnmarshalBinary(b))
	r.got = append(r.got, m)
	return nil
}

func innerRegister(t *testing.T, b []byte) (lisp.Inner, lisp.MapRegister) {
	t.Helper()
	var ecm lisp.EncapsulatedControl
	require.NoError(t, ecm.DecodeFromBytes(b))
	in, err := ecm.Inner()
	require.NoError(t, err)
	var m lisp.MapRegister
	require.NoError(t, m.UnmarshalBinary(in.Payload))
	return in, m
}

// TestXTROORCaptures feeds an XTR what a Map-Server and an RTR of OpenOverlayRouter
// sent to theirs behind a NAT. Everything is accepted, and what we send is what
// theirs sent: the Info-Request octet for octet, the Encapsulated Map-Register but
// for TTL, identification and checksums of the inner packet.
func TestXTROORCaptures(t *testing.T) {
	for _, file := range []string{"33-nat-OLD-inside.pcap", "37-nat-NEW-inside.pcap"} {
		t.Run(file, func(t *testing.T) {
			local := netip.MustParseAddr("10.99.0.2")
			var ask, reply lisp.Datagram
			var registers, notifies []lisp.Datagram
			for _, d := range captured(t, file) {
				switch {
				case d.Local.Addr() == local && d.Local.Port() == lisp.DataPort && d.Remote.Port() == lisp.ControlPort:
					if h, err := lisp.ParseDataHeader(d.Bytes); err == nil {
						if iid, ok := h.InstanceID(); ok && iid == lisp.InstanceIDControl {
							notifies = append(notifies, d)
						}
					}
				case d.Local.Addr() == local && lisp.TypeOf(d.Bytes) == lisp.TypeInfo:
					reply = d
				case d.Remote.Addr() == local && lisp.TypeOf(d.Bytes) == lisp.TypeInfo:
					ask = d
				case d.Remote.Addr() == local && d.Remote.Port() == lisp.DataPort && lisp.TypeOf(d.Bytes) == lisp.TypeEncapsulatedControl:
					registers = append(registers, d)
				}
			}
			require.NotEmpty(t, registers)
			require.Len(t, notifies, len(registers))
			var m lisp.InfoRequest
			require.NoError(t, m.DecodeFromBytes(ask.Bytes))
			_, first := innerRegister(t, registers[0].Bytes)

			reg := &oorRegistrar{t: t, next: registers}
			random := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(m.Nonce))
			x, err := NewXTR(XTRConfig{
				Variant: Old, Local: local, Servers: []netip.AddrPort{ask.Local}, Registrar: reg, XTRID: first.XTRID,
				Rand: bytes.NewReader(append(random, make([]byte, 4096)...)),
			})
			require.NoError(t, err)
			now := worldStart
			x.Advance(now)
			d, ok := x.Next()
			require.True(t, ok)
			assert.Equal(t, ask.Bytes, d.Bytes)
			assert.Equal(t, ask.Remote, d.Local)
			assert.Equal(t, ask.Local, d.Remote)

			require.True(t, x.Handle(now, reply))
			b := x.Binding()
			assert.Equal(t, "10.0.5.2", b.Global.Addr().String())
			for i, theirs := range registers {
				if i > 0 {
					now = now.Add(time.Minute)
					x.Renew(now)
				}
				d, ok := x.Next()
				require.True(t, ok)
				assert.Equal(t, theirs.Remote, d.Local)
				assert.Equal(t, theirs.Local, d.Remote)
				assert.Equal(t, theirs.Bytes[:4], d.Bytes[:4], "the header of the ECM")
				want, _ := innerRegister(t, theirs.Bytes)
				got, _ := innerRegister(t, d.Bytes)
				want.TTL = got.TTL
				assert.Equal(t, want, got)

				require.True(t, x.Handle(now.Add(time.Millisecond), notifies[i])) // nat19-5.1.1-s2 nat19i-5.1.1-2
				require.Len(t, reg.got, i+1)
				assert.Equal(t, Registered, x.Binding().State)
			}
			assert.Equal(t, [NumXTRDrops]uint64{}, x.Stats().Dropped)

			// Told again it changes nothing.
			before := x.Binding()
			x.Handle(now.Add(time.Second), reply)
			assert.Equal(t, uint64(1), x.Stats().Dropped[DropNonce])
			assert.True(t, x.Handle(now.Add(time.Second), notifies[0]))
			assert.Equal(t, 1, reg.late)
			assert.Equal(t, before, x.Binding())
		})
	}
}
