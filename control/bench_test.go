package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// BenchmarkProbing is one second of an engine that probes 100,000 locators
// every 30 s and gets its answers.
func BenchmarkProbing(b *testing.B) {
	const n = 100_000
	cfg := testConfig()
	cfg.MapServers = nil
	cfg.Cache.MaxEntries = 2 * n
	for i := range n {
		cfg.StaticMappings = append(cfg.StaticMappings, mapcache.Mapping{
			Key:   mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})),
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})}}},
		})
	}
	e, err := New(cfg)
	require.NoError(b, err)
	now := start
	e.SetLocals(now, locals())
	e.Publish()
	var probe lisp.MapRequest
	var answer []lisp.Datagram
	second := func() {
		end := now.Add(time.Second)
		for at := e.Deadline(); !at.IsZero() && at.Before(end); at = e.Deadline() {
			now = at
			e.Advance(now)
			answer = answer[:0]
			for d, ok := e.Next(); ok; d, ok = e.Next() {
				if probe.DecodeFromBytes(d.Bytes) == nil {
					r := lisp.MapReply{Probe: true, Nonce: probe.Nonce}
					bs, _ := r.MarshalBinary()
					answer = append(answer, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: bs})
				}
			}
			for _, d := range answer {
				e.Handle(now, d)
			}
			for _, ok := e.NextEvent(); ok; _, ok = e.NextEvent() {
			}
		}
		now = end
	}
	for range 31 {
		second()
	}
	before := e.Stats().ProbesSent
	b.ReportAllocs()
	for b.Loop() {
		second()
	}
	b.ReportMetric(float64(e.Stats().ProbesSent-before)/float64(b.N), "probes/op")
	b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N), "%core") // an op is a second
}

// BenchmarkMapReply answers encapsulated Map-Requests.
func BenchmarkMapReply(b *testing.B) {
	cfg := testConfig()
	cfg.Database = manyPrefixes(1000)
	cfg.MapReplyRate, cfg.MapReplyBurst = 1<<30, 1<<30
	e, err := New(cfg)
	require.NoError(b, err)
	e.SetLocals(start, locals())
	m := mapRequest("10.1.7.9/32")
	payload, err := m.MarshalBinary()
	require.NoError(b, err)
	p, err := lisp.AppendInner(nil, lisp.Inner{Source: netip.AddrPortFrom(peerRLOC, 4342), Destination: netip.MustParseAddrPort("10.1.7.9:4342"), Payload: payload})
	require.NoError(b, err)
	bs, err := (&lisp.EncapsulatedControl{Packet: p}).MarshalBinary()
	require.NoError(b, err)
	d := lisp.Datagram{Local: netip.AddrPortFrom(rloc4, 4342), Remote: msAddr, Bytes: bs}
	b.ReportAllocs()
	for b.Loop() {
		e.Handle(start, d)
		for _, ok := e.Next(); ok; _, ok = e.Next() {
		}
		for _, ok := e.NextEvent(); ok; _, ok = e.NextEvent() {
		}
	}
	require.Zero(b, e.Stats().Dropped[DropMapReplyRate])
}
