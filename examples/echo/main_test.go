package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

// said passes on what is written.
type said chan string

func (s said) Write(b []byte) (int, error) {
	s <- string(b)
	return len(b), nil
}

// freePort returns a port that nobody uses at a loopback address.
func freePort(t *testing.T, network, host string) string {
	t.Helper()
	if network == "tcp" {
		ln, err := net.Listen(network, net.JoinHostPort(host, "0"))
		require.NoError(t, err)
		defer ln.Close()
		return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
	}
	c, err := net.ListenPacket(network, net.JoinHostPort(host, "0"))
	require.NoError(t, err)
	defer c.Close()
	return strconv.Itoa(c.LocalAddr().(*net.UDPAddr).Port)
}

// TestEcho has clients and servers of both kinds talk.
func TestEcho(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(network+" "+host, func(t *testing.T) {
				t.Parallel()
				if c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0")); err != nil {
					t.Skipf("no loopback address %s: %v", host, err)
				} else {
					c.Close()
				}
				port := freePort(t, network, host)
				ctx, cancel := context.WithCancel(t.Context())
				ended, out := make(chan int, 1), make(said, 64)
				go func() { ended <- run(ctx, []string{network + "-server", "-l", host, "-p", port}, out, io.Discard) }()
				require.Contains(t, <-out, "listening at ")
				var answer bytes.Buffer
				code := run(ctx, []string{network + "-client", "-p", port, "-c", "20", "-i", "1ms", "-w", "1m", "-size", "100", "-json", "-from", host, host}, &answer, io.Discard)
				require.Equal(t, daemon.ExitOK, code)
				var f figures
				require.NoError(t, json.Unmarshal(answer.Bytes(), &f))
				assert.Equal(t, 20, f.Sent)
				assert.Equal(t, 20, f.Received)
				assert.Positive(t, f.Min)
				assert.LessOrEqual(t, f.Median, f.Max)

				var text bytes.Buffer
				require.Equal(t, daemon.ExitOK, run(ctx, []string{network + "-client", "-p", port, "-c", "1", host}, &text, io.Discard))
				assert.Contains(t, text.String(), "64 octets back, number 0, after ")
				assert.Contains(t, text.String(), "1 sent, 1 received, 0.0% lost, 0 duplicates, 0 out of order\nround trip min/median/max ")
				cancel()
				require.Equal(t, daemon.ExitOK, <-ended)
			})
		}
	}
}

// TestNobody: who gets no answer is told, and ends with an error.
func TestNobody(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	args := []string{"udp-client", "-q", "-p", freePort(t, "udp", "127.0.0.1"), "-c", "2", "-i", "1ms", "-w", "1ms", "127.0.0.1"}
	assert.Equal(t, daemon.ExitFailure, run(t.Context(), args, &out, &out))
	assert.Contains(t, out.String(), "2 sent, 0 received, 100.0% lost")
	out.Reset()
	args[0], args[3] = "tcp-client", freePort(t, "tcp", "127.0.0.1")
	assert.Equal(t, daemon.ExitFailure, run(t.Context(), args, &out, &out))
	assert.Contains(t, out.String(), "refused")
}

// TestBook: losses, duplicates and disorder are told apart.
func TestBook(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	message := func(n int) []byte {
		b := binary.BigEndian.AppendUint64(nil, uint64(n))
		return binary.BigEndian.AppendUint64(b, mark)
	}
	b := newBook(options{count: 5}, &net.UDPAddr{Port: 1}, io.Discard)
	for n := range 5 {
		assert.Equal(t, n, b.send(at(10*n)))
	}
	for _, r := range []struct{ n, at int }{{0, 20}, {2, 60}, {1, 70}, {1, 71}, {4, 300}, {9, 301}, {-1, 302}} {
		b.receive(at(r.at), message(r.n))
	}
	b.receive(at(303), []byte("short"))
	b.receive(at(303), make([]byte, 40))
	assert.Equal(t, &figures{
		To: ":1", Sent: 5, Received: 4, Duplicates: 1, Reordered: 1,
		Min: 20 * time.Millisecond, Median: 60 * time.Millisecond, Max: 260 * time.Millisecond, Gap: 230 * time.Millisecond,
	}, b.result())
	assert.Contains(t, fmt.Sprint(b.result()), "5 sent, 4 received, 20.0% lost, 1 duplicates, 1 out of order\nround trip min/median/max 20.000/60.000/260.000 ms, longest silence 230 ms\n")
	select {
	case <-b.all:
		t.Fatal("one is missing")
	default:
	}
	b.receive(at(310), message(3))
	<-b.all
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"", daemon.ExitUsage, "say what to be"},
		{"udp-sever", daemon.ExitUsage, `"udp-sever" is none of`},
		{"udp-client", daemon.ExitUsage, "exactly one host is needed"},
		{"udp-server x", daemon.ExitUsage, `unexpected argument "x"`},
		{"udp-client -size 15 x", daemon.ExitUsage, "-size is from 16 to 60000"},
		{"udp-client -i 0 x", daemon.ExitUsage, "out of range"},
		{"udp-client -from ::1 127.0.0.1", daemon.ExitFailure, "echo: "},
		{"udp-server -l 192.0.2.254", daemon.ExitFailure, "192.0.2.254"},
		{"tcp-server -l 192.0.2.254", daemon.ExitFailure, "192.0.2.254"},
		{"-x", daemon.ExitUsage, "not defined"},
		{"-help", daemon.ExitOK, "Usage: echo"},
		{"-version", daemon.ExitOK, "echo "},
	} {
		var out bytes.Buffer
		assert.Equal(t, tc.code, run(t.Context(), strings.Fields(tc.args), &out, &out), tc.args)
		assert.Contains(t, out.String(), tc.says, tc.args)
	}
}
