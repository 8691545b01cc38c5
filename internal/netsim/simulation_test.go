package netsim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/internal/netsim"
)

var good = netsim.Link{Latency: 20 * time.Millisecond}

// ordinary is what the Internet is like on most days.
var ordinary = netsim.Link{Latency: 10 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.005, Duplicate: 0.001, Reorder: 0.01}

// busy is a network in which xTRs move every half an hour, and now and then want
// other peers.
func busy(seed uint64, xtrs int) scenario {
	return scenario{
		seed: seed, xtrs: xtrs, peers: 4, link: ordinary, packets: 20 * time.Second, ttl: 15 * time.Minute,
		shift: 41 * time.Minute, roam: 30 * time.Minute, addresses: 2 * xtrs,
		engine: func(_ int, c *control.Config) { c.Probe.Interval = time.Minute },
	}
}

// TestSimulation: xTRs that move, with traffic, and one Map-Server, for four
// hours in which each message is judged and no pair is without a way for long.
func TestSimulation(t *testing.T) {
	const duration = 4 * time.Hour / slow
	w := newWorld(t, busy(1, many))
	w.bound = longestOutage
	w.net.Run(duration)
	t.Logf("%v: %s; %d moves, %d packets, %d of them lost; from a move to the first right packet: half %v, 90 %% %v, 99 %% %v, all %v; trace %x",
		duration, w.judge.summary(), w.moves, w.packetsSent, w.packetsLost, percentile(w.outages, 0.5), percentile(w.outages, 0.9),
		percentile(w.outages, 0.99), percentile(w.outages, 1), w.net.TraceHash())
	assert.Greater(t, w.judge.total, uint64(3000*many/slow))
	// By SMRs; what is longer lost them, and waited for a probe.
	assert.Less(t, percentile(w.outages, 0.5), time.Second)
	assert.Less(t, percentile(w.outages, 0.98), 10*time.Second)
	w.checkState(duration)
	w.checkRates(duration)
	// Nobody moves any more, and everybody finds everybody.
	w.freeze()
	w.net.Run(2 * time.Minute)
	assert.Equal(t, 2*len(w.xtrs), w.registered())
	assert.LessOrEqual(t, w.wrong(), len(w.xtrs)/50) // probes get lost
	w.link = netsim.Link{Latency: 10 * time.Millisecond}
	w.relink()
	w.net.Run(2 * time.Minute)
	assert.Zero(t, w.wrong())
}

// longestOutage is how long after a move, or the first packet, a pair may be
// without a way when a few messages get lost.
const longestOutage = 80 * time.Second

// TestSimulationRepeats: the same seed gives the same messages.
func TestSimulationRepeats(t *testing.T) {
	run := func(seed uint64) uint64 {
		w := newWorld(t, busy(seed, 50))
		w.net.Run(time.Hour / slow)
		require.NotZero(t, w.judge.total)
		return w.net.TraceHash()
	}
	first := run(1)
	assert.Equal(t, first, run(1))
	assert.NotEqual(t, first, run(2))
}

// BenchmarkSimulation runs a network for b.N simulated minutes: 1440 are a day.
func BenchmarkSimulation(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			sc := busy(1, n)
			sc.engine = nil // the default period of probes
			w := newWorld(b, sc)
			w.net.Run(time.Minute)
			before := w.judge.total
			for b.Loop() {
				w.net.Run(time.Minute)
			}
			messages := float64(w.judge.total - before)
			b.ReportMetric(messages/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/messages, "ns/message")
			b.ReportMetric(float64(b.N)*60/b.Elapsed().Seconds(), "sim-s/s")
			b.ReportMetric(messages, "messages")
		})
	}
}
