package encap

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// counted returns packets and octets out and in of an entry.
func (x *node) counted(t testing.TB, eid string) (out, in Counter) {
	t.Helper()
	e, ok := x.cache.LookupEntry(0, addr(eid))
	require.True(t, ok, eid)
	return Counter{e.PacketsOut, e.OctetsOut}, Counter{e.PacketsIn, e.OctetsIn}
}

// metered returns an egress that counts by entry.
func (x *node) metered() *egress {
	e := newEgress(x.Forwarder)
	e.meter = x.meters.take(mapcache.Outbound)
	return e
}

const eidC4 = "10.3.0.1" // behind the same locator as eidB4

// Two EIDs behind one locator have counters of their own, both ways, which sum up to
// those of the locator; also when packets had to wait, and when they were cut.
func TestEntryCounters(t *testing.T) {
	a := newA(t, &memNet{}, "")
	a.run(t)
	a.device.send(numbered(eidB4, 1))                                                            // waits
	a.device.send(packetSpec{src: eidA4, dst: eidC4, sport: 9, payloadLen: 2000, id: 3}.build()) // waits, and is cut
	require.Eventually(t, func() bool { return a.Stats().HeldNow == 2 }, waitTime, time.Millisecond)
	for _, eid := range []string{eidB4, eidC4} {
		a.learn(t, 0, eid+"/32", rlocB4)
	}
	a.device.send(numbered(eidB4, 2))
	a.device.send(numbered(eidB4, 3))
	a.device.send(numbered(eidC4, 4))
	for _, src := range []string{eidC4, eidC4, eidB4, nowhere} {
		a.underlay.in <- from(rlocB4, rlocA4, encapsulated(0, 0, 0, packetSpec{src: src, dst: eidA4, payloadLen: 100}.build()))
		a.device.next(t)
	}
	require.Eventually(t, func() bool { return a.Stats().Encapsulated.Packets == 6 }, waitTime, time.Millisecond)
	require.NoError(t, a.Close())

	outB, inB := a.counted(t, eidB4)
	outC, inC := a.counted(t, eidC4)
	assert.Equal(t, Counter{3, 3 * uint64(len(numbered(eidB4, 1)))}, outB)
	assert.Equal(t, Counter{3, uint64(len(numbered(eidC4, 1)) + 2000 + 8 + 2*20)}, outC)
	assert.Equal(t, Counter{1, 128}, inB)
	assert.Equal(t, Counter{2, 256}, inC)
	s := a.Stats()
	require.Len(t, s.Locators, 1)
	assert.Equal(t, s.Locators[0].Out, Counter{outB.Packets + outC.Packets, outB.Octets + outC.Octets})
	assert.Equal(t, s.Locators[0].In, Counter{inB.Packets + inC.Packets + 1, inB.Octets + inC.Octets + 128}, "one is of an unknown source")
}

// Sources of one batch are told apart, and large sends in one piece count as the
// packets that they are, out and in.
func TestEntryCountersOfABatch(t *testing.T) {
	a := newA(t, &memNet{}, rlocB4)
	a.learn(t, 0, eidC4+"/32", rlocB4)
	var in []Incoming
	for i := range 3 * maxTallies {
		src := []string{eidB4, eidC4, eidC4}[i%3]
		in = append(in, from(rlocB4, rlocA4, encapsulated(0, 0, 0, packetSpec{src: src, dst: eidA4, payloadLen: 10}.build())))
	}
	a.device.out = make(chan []byte, len(in))
	require.Len(t, a.pull(in...), len(in))
	_, inB := a.counted(t, eidB4)
	_, inC := a.counted(t, eidC4)
	assert.Equal(t, Counter{maxTallies, 38 * maxTallies}, inB)
	assert.Equal(t, Counter{2 * maxTallies, 2 * 38 * maxTallies}, inC)
	a.push(numbered(eidB4, 1), numbered(eidC4, 1), numbered(eidC4, 2), numbered(eidB4, 2), numbered(eidC4, 3))
	outB, _ := a.counted(t, eidB4)
	outC, _ := a.counted(t, eidC4)
	assert.Equal(t, Counter{2, 76}, outB)
	assert.Equal(t, Counter{3, 114}, outC)

	x, _ := newVirtio(t, rlocB4)
	s := stream{src: eidA4, dst: eidB4, ack: 9, window: 77, payload: make([]byte, 10*1000)}
	buf, n := s.super(t, 1000)
	e := x.metered()
	e.begin()
	e.virtioPacket(x.overlays[0], buf, n)
	e.flush()
	super := from(rlocB4, rlocA4, nil)
	for _, p := range s.reverse().cut(t, 1000) {
		super.Bytes = append(super.Bytes, encapsulated(0, 0, 0, p)...)
	}
	super.Segment, super.HasTOS = len(super.Bytes)/10, false
	newIngress(x.Forwarder, x.underlay).receive([]Incoming{super})
	out, arrived := x.counted(t, eidB4)
	want := x.Stats().Locators[0]
	assert.EqualValues(t, 10, out.Packets)
	assert.Equal(t, want.Out, out)
	assert.EqualValues(t, 10, arrived.Packets)
	assert.Equal(t, want.In, arrived)
}
