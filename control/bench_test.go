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
	var arena []byte
	reply := lisp.MapReply{Probe: true, Records: []lisp.EIDRecord{record("10.0.0.0/32", 1440, rloc4)}}
	rec := &reply.Records[0]
	rec.Locators[0].Probed = true
	second := func() {
		end := now.Add(time.Second)
		for at := e.Deadline(); !at.IsZero() && at.Before(end); at = e.Deadline() {
			now = at
			e.Advance(now)
			answer, arena = answer[:0], arena[:0]
			for d, ok := e.Next(); ok; d, ok = e.Next() {
				if probe.DecodeFromBytes(d.Bytes) == nil {
					reply.Nonce, rec.EID = probe.Nonce, probe.Records[0].EID
					rec.Locators[0].RLOC = lisp.AddressFrom(d.Remote.Addr())
					from := len(arena)
					arena, _ = reply.AppendBinary(arena)
					answer = append(answer, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: arena[from:]})
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
	before, cpu := e.Stats().ProbesSent, cpuTime(b)
	b.ReportAllocs()
	for b.Loop() {
		second()
	}
	cpu = cpuTime(b) - cpu
	b.ReportMetric(float64(e.Stats().ProbesSent-before)/float64(b.N), "probes/op")
	b.ReportMetric(100*cpu.Seconds()/float64(b.N), "%core") // an op is a second
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
