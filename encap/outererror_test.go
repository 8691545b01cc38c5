package encap

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// outerSpec describes the outer packet that an ICMP error quotes.
type outerSpec struct {
	local, remote string
	sport, dport  uint16
	header        []byte // data header and what follows it
	quoted        int    // octets quoted; 0: all
}

// icmp returns an ICMP error about the packet as an ICMPReceiver gets it.
func (s outerSpec) icmp(typ, code byte, mtu uint32) (message []byte, v6 bool) {
	outer := packetSpec{src: s.local, dst: s.remote, sport: s.sport, dport: s.dport, payloadLen: len(s.header)}.build()
	copy(outer[len(outer)-len(s.header):], s.header)
	if s.quoted > 0 {
		outer = outer[:s.quoted]
	}
	b := make([]byte, 8, 8+len(outer))
	b[0], b[1] = typ, code
	binary.BigEndian.PutUint32(b[4:], mtu)
	b = append(b, outer...)
	if v6 = addr(s.local).Is6(); !v6 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b, v6
}

func TestParseOuterError(t *testing.T) {
	v4 := outerSpec{local: rlocA4, remote: rlocB4, sport: 60000, dport: 4341, header: []byte("12345678payload")}
	v6 := outerSpec{local: rlocA6, remote: rlocB6, sport: 60000, dport: 4341, header: []byte("12345678payload")}
	for _, tt := range []struct {
		name      string
		spec      outerSpec
		typ, code byte
		mtu       uint32
		want      icmpKind
		ok        bool
	}{
		{"too big", v4, 3, 4, 1400, icmpTooBig, true},
		{"too big, old router", v4, 3, 4, 0, icmpTooBig, true},
		{"net unreachable", v4, 3, 0, 0, icmpUnreachable, true},
		{"host unreachable", v4, 3, 1, 0, icmpUnreachable, true},
		{"port unreachable", v4, 3, 3, 0, icmpUnreachable, true},
		{"prohibited", v4, 3, 13, 0, icmpProhibited, true},
		{"protocol unreachable", v4, 3, 2, 0, 0, false},
		{"time exceeded", v4, 11, 0, 0, 0, false},
		{"echo reply", v4, 0, 0, 0, 0, false},
		{"too big", v6, 2, 0, 1280, icmpTooBig, true},
		{"no route", v6, 1, 0, 0, icmpUnreachable, true},
		{"address unreachable", v6, 1, 3, 0, icmpUnreachable, true},
		{"port unreachable", v6, 1, 4, 0, icmpUnreachable, true},
		{"prohibited", v6, 1, 1, 0, icmpProhibited, true},
		{"time exceeded", v6, 3, 0, 0, 0, false},
		{"echo request", v6, 128, 0, 0, 0, false},
	} {
		b, is6 := tt.spec.icmp(tt.typ, tt.code, tt.mtu)
		var e outerError
		require.Equal(t, tt.ok, parseOuterError(b, is6, &e), tt.name)
		if !tt.ok {
			continue
		}
		assert.Equal(t, tt.want, e.kind, tt.name)
		assert.Equal(t, netip.AddrPortFrom(addr(tt.spec.local), 60000), e.local)
		assert.Equal(t, netip.AddrPortFrom(addr(tt.spec.remote), 4341), e.remote)
		assert.Equal(t, tt.spec.header, e.data)
		if e.kind == icmpTooBig {
			assert.EqualValues(t, tt.mtu, e.mtu)
		}
		// The least that is quoted has the ports. Less is nothing.
		least := len(b) - len(tt.spec.header)
		if !is6 {
			for n := range least {
				assert.False(t, parseOuterError(fixICMP(b[:n]), false, &e), n)
			}
			assert.True(t, parseOuterError(fixICMP(b[:least]), false, &e))
			wrong := clone(b)
			wrong[len(wrong)-1] ^= 1
			assert.False(t, parseOuterError(wrong, false, &e), "checksum")
		} else {
			for n := range least {
				assert.False(t, parseOuterError(b[:n], true, &e), n)
			}
			assert.True(t, parseOuterError(b[:least], true, &e))
		}
	}

	// An outer packet that was fragmented here: the first fragment says it all.
	fragment := func(offset uint16) []byte {
		b, _ := v6.icmp(1, 0, 0)
		out := append(clone(b[:8+40]), 17, 0, byte(offset>>8), byte(offset)|1, 0, 0, 0, 9)
		out[8+6] = 44
		return append(out, b[8+40:]...)
	}
	var e outerError
	assert.True(t, parseOuterError(fragment(0), true, &e))
	assert.False(t, parseOuterError(fragment(8), true, &e))
	b, _ := v4.icmp(3, 1, 0)
	b[8+7] = 1 // not the first
	assert.False(t, parseOuterError(fixICMP(b), false, &e))
	b, _ = v4.icmp(3, 1, 0)
	b[8+9] = protoTCP
	assert.False(t, parseOuterError(fixICMP(b), false, &e))
}

// fixICMP sets the checksum of an ICMP message.
func fixICMP(b []byte) []byte {
	b = clone(b)
	if len(b) >= 4 {
		b[2], b[3] = 0, 0
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

func TestPathMTUOfError(t *testing.T) {
	for _, tt := range []struct {
		remote            string
		mtu, length, want int
	}{
		{rlocB4, 1400, 1500, 1400},
		{rlocB4, 1500, 1500, 0}, // it did fit
		{rlocB4, 9000, 1500, 0},
		{rlocB4, 68, 1500, 552}, // nobody makes us send crumbs
		{rlocB4, 0, 1500, 1492},
		{rlocB4, 0, 1492, 1280},
		{rlocB4, 0, 65535, 32000},
		{rlocB4, 0, 60, 0},
		{rlocB6, 1280, 1500, 1280},
		{rlocB6, 1279, 1500, 0},
		{rlocB6, 0, 1500, 0},
	} {
		e := outerError{mtu: tt.mtu, length: tt.length, remote: netip.AddrPortFrom(addr(tt.remote), 4341)}
		assert.Equal(t, tt.want, e.pathMTU(), "%+v", tt)
	}
}

// hears makes the node take an ICMP error about an outer packet.
func (x *node) hears(t testing.TB, message []byte, v6 bool) bool {
	t.Helper()
	var o outerError
	if !parseOuterError(message, v6, &o) {
		return false
	}
	e := newEgress(x.Forwarder)
	e.begin()
	return e.outerError(time.Now(), &o)
}

func TestOuterTooBig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			local, remote string
			typ, code     byte
		}{{rlocA4, rlocB4, 3, 4}, {rlocA6, rlocB6, 2, 0}} {
			x := newA(t, &memNet{}, tt.remote)
			x.run(t)
			big := packetSpec{src: eidA4, dst: eidB4, df: true, payloadLen: 1400}.build()
			x.push(big)
			out := x.underlay.take()
			require.Len(t, out, 1)
			spec := outerSpec{local: tt.local, remote: tt.remote, sport: 60000, dport: 4341, header: out[0].Bytes}
			require.True(t, x.hears(t, mustICMP(spec, tt.typ, tt.code, 1300), addr(tt.local).Is6()))
			room := 1300 - Overhead(addr(tt.remote))

			// The source of the quoted packet is told at once.
			_, code, mtu, ok := x.icmpError()
			require.True(t, ok)
			assert.Equal(t, [2]int{4, room}, [2]int{int(code), mtu}) // RFC 9300-7.2-s1
			// And whoever sends as much later.
			x.push(big)
			assert.Empty(t, x.underlay.take())
			_, _, mtu, _ = x.icmpError()
			assert.Equal(t, room, mtu)
			// What fits passes, and what may be cut is cut.
			x.push(packetSpec{src: eidA4, dst: eidB4, df: true, payloadLen: room - 28}.build())
			assert.Len(t, x.underlay.take(), 1)
			x.push(packetSpec{src: eidA4, dst: eidB4, payloadLen: 1400}.build())
			assert.Len(t, x.underlay.take(), 2)

			// A later error about a larger MTU does not raise it.
			spec.header = make([]byte, 1450)
			x.hears(t, mustICMP(spec, tt.typ, tt.code, 1400), addr(tt.local).Is6())
			x.push(big)
			assert.Empty(t, x.underlay.take())
			x.icmpError()

			// It is raised again with time.
			time.Sleep(pathMTUTime + time.Second)
			synctest.Wait()
			x.push(big)
			assert.Len(t, x.underlay.take(), 1)
			x.Close()
		}
	})
}

func mustICMP(s outerSpec, typ, code byte, mtu uint32) []byte {
	b, _ := s.icmp(typ, code, mtu)
	return b
}

func TestOuterUnreachable(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4)
	for _, b := range [][]byte{
		packetSpec{src: eidA4, dst: eidB4, payloadLen: 40}.build(),
		packetSpec{src: eidA6, dst: eidB6, payloadLen: 40}.build(),
	} {
		x.push(b)
		out := x.underlay.take()
		require.Len(t, out, 1)
		spec := outerSpec{local: rlocA4, remote: rlocB4, sport: 60000, dport: 4341, header: out[0].Bytes}
		// All of the packet is quoted, or its beginning, or nothing of it.
		for i, quoted := range []int{0, 28 + 8 + len(b) - 10, 28 + 8 + 20} {
			spec.quoted = quoted
			require.True(t, x.hears(t, mustICMP(spec, 3, 1, 0), false))
			assert.Equal(t, mapcache.Discovery{ // RFC 9301-7-1
				Kind: mapcache.DiscoveryUnreachable, Locator: mapcache.Locator{Addr: addr(rlocB4), Port: 4341},
			}, <-x.Discoveries())
			select {
			case answer := <-x.device.out:
				require.Less(t, i, 2)
				var p inner
				require.Equal(t, DropNone, parseInner(answer, &p))
				var q inner
				require.True(t, parseQuoted(b, &q))
				assert.Equal(t, q.src, p.dst) // RFC 9301-7-1
				header := p.headerLen
				assert.Equal(t, b[:min(len(b), len(answer)-header-8)], answer[header+8:], "what it quotes")
			default:
				require.Equal(t, 2, i)
			}
		}
	}
	spec := outerSpec{local: rlocA4, remote: rlocB4, sport: 60000, dport: 4341, header: encapsulated(0, 0, 0, packetSpec{src: eidA4, dst: eidB4, payloadLen: 40}.build())}
	require.True(t, x.hears(t, mustICMP(spec, 3, 13, 0), false))
	typ, code, _, _ := x.icmpError()
	assert.Equal(t, [2]byte{3, 13}, [2]byte{typ, code})
}

// Without an Instance ID its place has Locator-Status-Bits, here those of nine
// locators.
func TestOuterErrorWithLSBs(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4)
	b := packetSpec{src: eidA4, dst: eidB4, payloadLen: 40}.build()
	x.push(b)
	x.underlay.take()
	spec := outerSpec{local: rlocA4, remote: rlocB4, sport: 60000, dport: 4341, header: encapsulated(0x40, 0, 0x1ff, b)}
	require.True(t, x.hears(t, mustICMP(spec, 3, 1, 0), false))
	assert.Equal(t, mapcache.DiscoveryUnreachable, x.discovered().Kind)
	_, _, _, told := x.icmpError()
	assert.True(t, told)
}

// An Ethernet frame that is quoted is no inner packet, whatever its MAC address looks
// like.
func TestOuterErrorAboutAFrame(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4)
	x.push(packetSpec{src: eidA4, dst: eidB4, payloadLen: 40}.build())
	x.underlay.take()
	frame := append([]byte{0x46, 0, 0, 60, 1, 2, 0x60, 0, 0, 0, 1, 2, 8, 0}, make([]byte, 46)...)
	spec := outerSpec{local: rlocA4, remote: rlocB4, sport: 60000, dport: 4341, header: encapsulated(0x04, 3, 0, frame)}
	assert.True(t, x.hears(t, mustICMP(spec, 3, 1, 0), false))
	assert.Equal(t, mapcache.DiscoveryUnreachable, x.discovered().Kind)
	_, _, _, told := x.icmpError()
	assert.False(t, told)
}

// An RTR obeys errors about what it has sent on, and tells the source of the inner
// packet, but only of those whom it serves.
func TestOuterErrorAboutRelayed(t *testing.T) {
	for _, tt := range []struct {
		name, src, dst, from, to string
		dport                    uint16
		ok                       bool
	}{
		{"from a node", natted1, public, nat1, publicRLOC, 4341, true},
		{"to a node", unknown, natted1, stranger, nat1, natPort1, true},
		{"of strangers", unknown, public, stranger, publicRLOC, 4341, false},
	} {
		x := newRelay(t)
		x.relayed(
			from(nat1, rtr4, encapsulated(0, 0, 0, packetSpec{src: natted1, dst: public, payloadLen: 40}.build())),
			from(stranger, rtr4, encapsulated(0, 0, 0, packetSpec{src: unknown, dst: natted1, payloadLen: 40}.build())),
		)
		quoted := encapsulated(0, 0, 0, packetSpec{src: tt.src, dst: tt.dst, payloadLen: 40}.build())
		spec := outerSpec{local: rtr4, remote: tt.to, sport: 60000, dport: tt.dport, header: quoted}
		assert.Equal(t, tt.ok, x.hears(t, mustICMP(spec, 3, 1, 0), false), tt.name)
		told := x.told()
		if !tt.ok {
			assert.Empty(t, told, tt.name)
			continue
		}
		require.Len(t, told, 1, tt.name)
		var p inner
		require.Equal(t, DropNone, parseInner(told[0], &p))
		assert.Equal(t, addr(tt.src), p.dst, tt.name)
	}
}

// portPath is a Path that knows its source ports.
type portPath struct{ *memPath }

func (portPath) SendsFrom(port uint16) bool { return port == 60000 }

type portUnderlay struct{ *memUnderlay }

func (u portUnderlay) Open(l mapcache.Local) (Path, error) {
	return portPath{&memPath{u.memUnderlay, l.Addr}}, nil
}

// Anybody can send ICMP errors: RFC 9300-7.2-s2.
func TestOuterErrorsMadeUp(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4, func(c *nodeConfig) {
		c.change = func(c *Config) { c.Underlay = portUnderlay{c.Underlay.(*memUnderlay)} }
	})
	x.learn(t, 0, "10.3.0.0/16", "192.0.2.3")
	b := packetSpec{src: eidA4, dst: eidB4, df: true, payloadLen: 1400}.build()
	x.push(b)
	good := outerSpec{local: rlocA4, remote: rlocB4, sport: 60000, dport: 4341, header: x.underlay.take()[0].Bytes}
	for _, tt := range []struct {
		name   string
		change func(*outerSpec)
	}{
		{"not from our locator", func(s *outerSpec) { s.local = "192.0.2.77" }},
		{"not from our source port", func(s *outerSpec) { s.sport = 60001 }},
		{"not to a locator", func(s *outerSpec) { s.remote = "192.0.2.99" }},
		{"to a locator that nothing was sent to", func(s *outerSpec) { s.remote = "192.0.2.3" }},
		{"not to its port", func(s *outerSpec) { s.dport = 4342 }},
		{"from an EID that is not ours", func(s *outerSpec) {
			s.header = encapsulated(0, 0, 0, packetSpec{src: "10.9.0.1", dst: eidB4, df: true, payloadLen: 1400}.build())
		}},
		{"of an instance that is not ours", func(s *outerSpec) {
			s.header = encapsulated(8, 0, 7<<8, packetSpec{src: eidA4, dst: eidB4, df: true, payloadLen: 1400}.build())
		}},
	} {
		spec := good
		tt.change(&spec)
		assert.False(t, x.hears(t, mustICMP(spec, 3, 4, 1300), false), tt.name)
		assert.False(t, x.hears(t, mustICMP(spec, 3, 1, 0), false), tt.name)
	}
	assert.False(t, x.hears(t, mustICMP(good, 3, 4, 1500), false), "it did fit")
	x.push(b)
	assert.Len(t, x.underlay.take(), 1, "nothing was learned")
	assert.Empty(t, x.Discoveries())

	// The mapping went away.
	require.True(t, x.hears(t, mustICMP(good, 3, 1, 0), false))
	<-x.Discoveries()
	x.cache.Remove(x.now, hostKey(eidB4))
	x.cache.Remove(x.now, hostKey(eidB6))
	x.learn(t, 0, "10.4.0.0/16", "192.0.2.4")
	x.learn(t, 0, "10.5.0.0/16", "192.0.2.5")
	assert.False(t, x.hears(t, mustICMP(good, 3, 1, 0), false))
}

// Between a receiver's look at the map-cache and its look at the locators that
// were sent to, there can be packets to a locator that the map-cache has since.
func TestOuterErrorAboutLaterLocator(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4)
	e := newEgress(x.Forwarder)
	e.begin()
	for i := range 200 {
		x.learn(t, 0, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 3, 0, byte(i)}), 32).String(),
			netip.AddrFrom4([4]byte{192, 0, 3, byte(i)}).String())
	}
	b := packetSpec{src: eidA4, dst: "10.3.0.199", payloadLen: 40}.build()
	x.push(b)
	spec := outerSpec{local: rlocA4, remote: "192.0.3.199", sport: 60000, dport: 4341, header: x.underlay.take()[0].Bytes}
	message := mustICMP(spec, 3, 1, 0)
	var o outerError
	require.True(t, parseOuterError(message, false, &o))
	assert.False(t, e.outerError(time.Now(), &o))
	assert.True(t, x.hears(t, message, false), "the next one")
}

// memICMP is an ICMPReceiver in memory.
type memICMP struct {
	in     chan []byte
	once   sync.Once
	closed chan struct{}
}

func (m *memICMP) Receive() ([]byte, bool, error) {
	select {
	case b := <-m.in:
		return b, false, nil
	case <-m.closed:
		return nil, false, net.ErrClosed
	}
}

func (m *memICMP) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// Run reads what the receivers have, at a limited rate.
func TestReceiveICMP(t *testing.T) {
	m := &memICMP{in: make(chan []byte), closed: make(chan struct{})}
	x := newA(t, &memNet{}, rlocB4, func(c *nodeConfig) { c.change = func(c *Config) { c.ICMP = []ICMPReceiver{m} } })
	x.run(t)
	b := packetSpec{src: eidA4, dst: eidB4, payloadLen: 40}.build()
	x.device.send(b)
	require.Eventually(t, func() bool { return x.Stats().Encapsulated.Packets == 1 }, waitTime, time.Millisecond)
	spec := outerSpec{local: rlocA4, remote: rlocB4, sport: 60000, dport: 4341, header: x.underlay.take()[0].Bytes}
	m.in <- []byte("rubbish")
	spec.remote = "192.0.2.99"
	m.in <- mustICMP(spec, 3, 1, 0)
	spec.remote = rlocB4
	m.in <- mustICMP(spec, 3, 1, 0)
	assert.Equal(t, mapcache.DiscoveryUnreachable, (<-x.Discoveries()).Kind)
	for range 2 * outerErrorRate {
		m.in <- mustICMP(spec, 3, 1, 0)
	}
	m.in <- []byte("the one before is done")
	s := x.Stats()
	assert.EqualValues(t, 1, s.OuterErrorsIgnored)
	assert.Less(t, s.OuterErrors, uint64(2*outerErrorRate), "at a limited rate")
	assert.NotZero(t, s.OuterErrors)
}

func FuzzOuterError(f *testing.F) {
	for _, s := range []outerSpec{
		{local: rlocA4, remote: rlocB4, sport: 60000, dport: 4341, header: encapsulated(0, 0, 0, packetSpec{src: eidA4, dst: eidB4, payloadLen: 9}.build())},
		{local: rlocA6, remote: rlocB6, sport: 60000, dport: 4341, header: encapsulated(0, 0, 0, packetSpec{src: eidA6, dst: eidB6, payloadLen: 9}.build())},
	} {
		b, v6 := s.icmp(1, 3, 1300)
		f.Add(b, v6)
		b, v6 = s.icmp(3, 4, 1300)
		f.Add(b, v6)
	}
	x := newA(f, &memNet{}, rlocB4)
	x.learn(f, 0, "10.7.0.0/16", rlocB6)
	x.push(packetSpec{src: eidA4, dst: eidB4, payloadLen: 9}.build(), packetSpec{src: eidA4, dst: "10.7.0.1", payloadLen: 9}.build())
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		if !v6 {
			b = fixICMP(b)
		}
		x.hears(t, b, v6)
		for len(x.device.out) > 0 {
			answer := <-x.device.out
			var p inner
			require.Equal(t, DropNone, parseInner(answer, &p))
			assert.True(t, p.dst == addr(eidA4) || p.dst == addr(eidA6), "only our own hosts are told")
		}
		for len(x.discoveries) > 0 {
			<-x.discoveries
		}
		for _, r := range []string{rlocB4, rlocB6} {
			assert.GreaterOrEqual(t, x.paths.limit(addr(r), 1500), 552)
		}
	})
}
