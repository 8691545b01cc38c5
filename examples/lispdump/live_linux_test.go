package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// firstLine ends a context with the first line written to it.
type firstLine struct {
	bytes.Buffer
	stop context.CancelFunc
}

func (f *firstLine) Write(b []byte) (int, error) {
	defer f.stop()
	return f.Buffer.Write(b)
}

// TestLive listens on the loopback interface of a host of its own.
func TestLive(t *testing.T) {
	lab := netlab.Test(t, netlab.PacketSockets)
	h := lab.Host("a")
	require.NoError(t, lab.Err())
	// Larger than the MTU less a link header, which a capture is often cut to.
	message := append(request(t)[28:], make([]byte, 60_000)...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var conn net.Conn
	require.NoError(t, h.Do(func() (err error) {
		conn, err = net.Dial("udp4", "127.0.0.1:4342")
		return err
	}))
	defer conn.Close()
	go func() { // nobody says when lispdump listens
		for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; {
			_, _ = conn.Write(message) // refused, but seen
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	out, stderr := &firstLine{stop: cancel}, &bytes.Buffer{}
	require.NoError(t, h.Do(func() error {
		assert.Zero(t, run(ctx, []string{"-i", "lo"}, strings.NewReader(""), out, stderr), stderr)
		return nil
	}))
	assert.Contains(t, out.String(), "> 127.0.0.1:4342 Map-Request probe nonce 0x8fe7b77fb8b4e68f")
	assert.NotContains(t, out.String(), "malformed")
}

func TestLiveMisuse(t *testing.T) {
	_, errOut, code := dump(t, "-i", "no-such-interface")
	assert.Equal(t, 1, code)
	assert.Contains(t, errOut, "lispdump: interface no-such-interface: no such interface\n")
}
