package natt

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netsim"
)

// TestXTRWithdrawRace: a withdrawal while Map-Registers are under way, by whatever
// RTR and at whatever moment, is the last that the Map-Server hears.
func TestXTRWithdrawRace(t *testing.T) {
	for _, slow := range []time.Duration{0, 30 * time.Millisecond, 400 * time.Millisecond} {
		for at := 10 * time.Millisecond; at < 500*time.Millisecond; at += 15 * time.Millisecond {
			t.Run(fmt.Sprintf("slow %v at %v", slow, at), func(t *testing.T) {
				w := newXTRWorld(t, 1, 2, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{Kind: netsim.Symmetric}, nil))
				w.ms.anyOrder = true
				w.rtrAt[0].SetLink(netsim.Link{Latency: slow})
				w.net.Run(at)
				w.node.Step(w.xtr.Withdraw)
				require.True(t, w.net.RunUntil(time.Minute, w.xtr.WithdrawDone))
				sent := len(w.sent)
				w.net.Run(time.Minute)
				assert.Len(t, w.sent, sent, "it is over")
				assert.True(t, w.xtr.Deadline().IsZero())
				if len(w.ms.last.Records) > 0 {
					assert.Zero(t, w.ms.last.Records[0].TTL, "%v", w.ms.paths)
				}
				for i, r := range w.rtrs {
					assert.Empty(t, r.Relays(), "RTR %d", i)
				}
			})
		}
	}
}

// TestXTRWithdrawFailover: the RTR in use is gone and others are tried. It ends when
// one doesn't answer, too, and in time.
func TestXTRWithdrawFailover(t *testing.T) {
	w := newXTRWorld(t, 1, 2, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	require.Equal(t, worldRTR(1), w.xtr.Binding().RTR)
	w.rtrAt[1].SetDown(true)
	w.rtrAt[0].SetLink(netsim.Link{Latency: time.Second})
	require.True(t, w.net.RunUntil(time.Minute, func() bool { return len(w.xtr.racing) > 0 }))
	w.node.Step(w.xtr.Withdraw)
	begin := w.net.Now()
	require.True(t, w.net.RunUntil(time.Minute, w.xtr.WithdrawDone))
	assert.LessOrEqual(t, w.net.Now().Sub(begin), 4*registerWait+time.Second)
	w.net.Run(time.Minute)
	assert.Zero(t, w.ms.last.Records[0].TTL)
}

// TestXTRWithdrawRepeats: what is not answered is sent four times, and only that.
func TestXTRWithdrawRepeats(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.ms.anyOrder = true
	w.net.Run(time.Minute)
	w.xtr.cfg.Registrar = twice{w.reg} // the RTR doesn't know the second Map-Server
	before := w.xtr.Stats().MapRegistersSent
	w.node.Step(w.xtr.Withdraw)
	w.net.Run(time.Minute)
	assert.True(t, w.xtr.WithdrawDone())
	assert.Equal(t, before+1+registerSends, w.xtr.Stats().MapRegistersSent)
}

// TestXTRWithdrawAnswers: the answer to what was registered before is none to the
// withdrawal.
func TestXTRWithdrawAnswers(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(25 * time.Millisecond)
	require.Len(t, w.xtr.sent, 1)
	w.node.Step(w.xtr.Withdraw)
	withdrawn := w.net.RunUntil(time.Second, func() bool {
		return w.xtr.Stats().Dropped[DropNonce] > 0 // the Data-Map-Notify to the first one
	})
	require.True(t, withdrawn)
	assert.False(t, w.xtr.WithdrawDone())
	w.net.Run(time.Second)
	assert.True(t, w.xtr.WithdrawDone())
	assert.Zero(t, w.ms.last.Records[0].TTL)
}

// TestXTRWithdrawn: nothing begins again.
func TestXTRWithdrawn(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.node.Step(w.xtr.Withdraw) // nobody has heard of us
	assert.True(t, w.xtr.WithdrawDone())
	sent := len(w.sent)
	w.node.Step(w.xtr.Restart)
	w.node.Step(w.xtr.Renew)
	w.node.Step(w.xtr.Withdraw)
	w.net.Run(time.Hour)
	assert.Len(t, w.sent, sent)
	assert.True(t, w.xtr.Deadline().IsZero())
}
