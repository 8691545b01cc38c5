package ebpf

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// The moving EID goes from one of so many locators to the next, by ports of their own,
// so that sockets of the test get what is sent to them.
const (
	movingPort  = 4999
	movingPorts = 16
)

// movingLocator is where the EID is after so many moves.
func movingLocator(n int) netip.AddrPort {
	return netip.AddrPortFrom(movingTo(n), uint16(movingPort+n%movingPorts))
}

// lateness is how long after a change a packet may still go where it went before.
const lateness = 10 * time.Millisecond

// staleWatch has a packet sent each 200 µs to the moving EID, and looks at where it
// went.
type staleWatch struct {
	done chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	moves   []moved       // the last of them
	packets int           // that arrived
	during  int           // that went to the old locator while the change was made
	stale   int           // that went there when it had been made
	late    int           // that went there later than lateness after it was begun
	longest time.Duration // that a change took
}

// moved is a change of the locator. made is zero until it is.
type moved struct {
	n           int
	begun, made time.Time
}

func (s *soak) watchStale(t *testing.T) {
	t.Helper()
	s.watch.done = make(chan struct{})
	out, err := s.link.A.Host.ListenPacket("udp", "10.1.0.1:0")
	require.NoError(t, err)
	start := time.Now()
	for i := range movingPorts {
		in, err := s.link.B.Host.ListenPacket("udp", movingLocator(i).String())
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, in.Close()) })
		go func() {
			b := make([]byte, 1<<10)
			for {
				n, _, err := in.ReadFrom(b)
				if err != nil {
					return
				}
				const headers = 8 + 20 + 8 // LISP, IPv4 and UDP
				if n == headers+8 {
					s.watch.arrived(start.Add(time.Duration(binary.BigEndian.Uint64(b[headers:n]))), i)
				}
			}
		}()
	}
	s.watch.wg.Go(func() {
		defer out.Close()
		ticker := time.NewTicker(200 * time.Microsecond)
		defer ticker.Stop()
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(moving), 9))
		for {
			select {
			case <-s.watch.done:
				return
			case <-ticker.C:
				s.watch.mu.Lock() // no change begins between the time and the packet
				_, _ = out.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(time.Since(start))), to)
				s.watch.mu.Unlock()
			}
		}
	})
}

// begin notes that a change begins, end that it has been made.
func (w *staleWatch) begin(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.moves) == 1024 {
		w.moves = append(w.moves[:0], w.moves[512:]...)
	}
	w.moves = append(w.moves, moved{n: n, begun: time.Now()})
}

func (w *staleWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &w.moves[len(w.moves)-1]
	m.made = time.Now()
	w.longest = max(w.longest, m.made.Sub(m.begun))
}

// arrived judges a packet by the last change that had begun before it was sent. What
// was sent before a change and forwarded after it is newer than it need be.
func (w *staleWatch) arrived(sent time.Time, at int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.packets++
	for _, m := range slices.Backward(w.moves) {
		if sent.Before(m.begun) {
			continue
		}
		if ahead := (at - m.n%movingPorts + movingPorts) % movingPorts; ahead < movingPorts/2 {
			return
		}
		if m.made.IsZero() || sent.Before(m.made) {
			w.during++
		} else {
			w.stale++
		}
		if sent.Sub(m.begun) > lateness {
			w.late++
		}
		return
	}
}

// report ends the watch. That no packet went to the old locator later than lateness
// after a change is said, and asserted of what does not hang on how fast the machine
// is: none did when the change had been made.
func (w *staleWatch) report(t *testing.T) {
	t.Helper()
	require.NoError(t, netlab.Eventually(t.Context(), "a hundred packets", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.packets > 100
	}))
	close(w.done)
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("%d packets to an EID that moves: %d to its old locator while a change was made, %d when it had been made; %d more than %v after it was begun; the longest change took %v",
		w.packets, w.during, w.stale, w.late, lateness, w.longest)
	assert.Zero(t, w.stale)
}
