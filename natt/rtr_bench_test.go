package natt

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// BenchmarkRTRRegistration: a Map-Register relayed, its Map-Notify verified and
// passed on, for one of 10,000 nodes that are there already.
func BenchmarkRTRRegistration(b *testing.B) {
	const nodes = 10_000
	r := newRTRBench(b, func(c *RTRConfig) { c.RegisterRate, c.SourceRate = 1e9, 1e9 })
	at := netip.AddrPortFrom(rtrIP, lisp.ControlPort)
	type pair struct {
		register, notify lisp.Datagram
	}
	// Two rounds of nonces, so that none is one that has just been confirmed.
	pairs := make([]pair, 2*nodes)
	for i := range pairs {
		n := nodeA()
		binary.BigEndian.PutUint32(n.xtr[:], uint32(i%nodes))
		n.eid = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i % nodes >> 8), byte(i % nodes)}), 32).String()
		nonce := lisp.Nonce(i)
		pairs[i].register = lisp.Datagram{Local: at, Remote: n.from, Bytes: n.registerPacket(b, nonce)}
		pairs[i].notify = lisp.Datagram{Local: at, Remote: msPort, Bytes: r.notifyPacket(n, nonce)}
	}
	step := func(i int) {
		p := &pairs[i%len(pairs)]
		r.now = r.now.Add(time.Microsecond)
		r.r.Handle(r.now, p.register)
		r.r.Handle(r.now, p.notify)
		for _, ok := r.r.Next(); ok; _, ok = r.r.Next() {
		}
		for _, ok := r.r.NextChange(); ok; _, ok = r.r.NextChange() {
		}
		for _, ok := r.r.NextEvent(); ok; _, ok = r.r.NextEvent() {
		}
	}
	for i := range nodes {
		step(i)
	}
	require.Equal(b, nodes, r.r.Stats().Relays)
	b.ReportAllocs()
	i := nodes
	for b.Loop() {
		step(i)
		i++
	}
}
