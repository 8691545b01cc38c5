package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/socktest"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// program tells its state unless it hangs.
type program struct{ asked, hangs chan struct{} }

func (p program) Status(ctx context.Context) (statusd.Status, error) {
	select {
	case p.asked <- struct{}{}:
	default:
	}
	select {
	case <-p.hangs:
		<-ctx.Done()
		return statusd.Status{}, errors.New("hangs")
	default:
		return statusd.Status{}, nil
	}
}

func (program) Events() *statusd.Server { return nil }

// manager is the service manager's end of the socket. next waits for what it is told,
// queued returns what it has been told by now.
func manager(t *testing.T) (next func() string, queued func() []string) {
	t.Helper()
	path := filepath.Join(socktest.Dir(t), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, conn.Close()) })
	t.Setenv("NOTIFY_SOCKET", path)
	next = func() string {
		b := make([]byte, 1024)
		n, err := conn.Read(b)
		require.NoError(t, err)
		return string(b[:n])
	}
	return next, func() (told []string) {
		own, err := net.Dial("unixgram", path)
		require.NoError(t, err)
		defer own.Close()
		_, err = own.Write([]byte("end"))
		require.NoError(t, err)
		for s := next(); s != "end"; s = next() {
			told = append(told, s)
		}
		return told
	}
}

func TestService(t *testing.T) {
	next, _ := manager(t)
	stop := Service(t.Context(), program{}, slog.New(slog.DiscardHandler))
	assert.Equal(t, "READY=1", next())
	done := Reloading(slog.New(slog.DiscardHandler))
	assert.Regexp(t, regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9]\d+$`), next())
	done()
	assert.Equal(t, "READY=1", next())
	stop()
	assert.Equal(t, "STOPPING=1", next())
}

func TestWatchdog(t *testing.T) {
	next, queued := manager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	p := program{make(chan struct{}, 1), make(chan struct{})}
	stop := Service(t.Context(), p, slog.New(slog.DiscardHandler))
	assert.Equal(t, "READY=1", next())
	assert.Equal(t, "WATCHDOG=1", next())
	assert.Equal(t, "WATCHDOG=1", next(), "again and again")
	close(p.hangs)
	// What was asked before it hung may be told still; after two vain questions no more is.
	for range 3 {
		<-p.asked
	}
	queued()
	for range 3 {
		<-p.asked
	}
	assert.Empty(t, queued(), "one that hangs is not well")
	stop()
	assert.Equal(t, "STOPPING=1", next())
}

func TestNoServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	var out strings.Builder
	Service(t.Context(), program{}, slog.New(slog.NewTextHandler(&out, nil)))()
	assert.Empty(t, out.String())
	t.Setenv("NOTIFY_SOCKET", "/nonexistent/socket")
	Service(t.Context(), program{}, slog.New(slog.NewTextHandler(&out, nil)))()
	assert.Contains(t, out.String(), "the service manager can't be told")
}

// In a process of its own, which has nothing left to do with what it gave up.
func TestDropCapabilities(t *testing.T) {
	if os.Getenv("XTRKIT_TEST_DROP") != "" {
		require.NoError(t, DropCapabilities())
		b, err := os.ReadFile("/proc/thread-self/status")
		require.NoError(t, err)
		tasks, err := os.ReadDir("/proc/self/task")
		require.NoError(t, err)
		sets := regexp.MustCompile(`Cap(?:Prm|Eff|Inh|Bnd|Amb):.*`)
		for _, task := range tasks {
			other, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
			require.NoError(t, err)
			assert.Equal(t, sets.FindAllString(string(b), -1), sets.FindAllString(string(other), -1), "all threads alike")
		}
		const netAdmin, netRaw, bpf = 1 << 12, 1 << 13, 1 << 39
		for _, set := range []string{"CapPrm", "CapEff"} {
			has := hex(t, string(b), set)
			assert.Zero(t, has&^(netAdmin|netRaw|bpf), "%s has more than needed: %x", set, has)
			if os.Geteuid() == 0 {
				assert.Equal(t, uint64(netAdmin|netRaw), has&(netAdmin|netRaw), "%s lacks what is needed: %x", set, has)
			}
		}
		if os.Geteuid() == 0 {
			assert.Zero(t, hex(t, string(b), "CapBnd")&^(netAdmin|netRaw|bpf))
		}
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^TestDropCapabilities$")
	cmd.Env = append(os.Environ(), "XTRKIT_TEST_DROP=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func hex(t *testing.T, status, set string) uint64 {
	t.Helper()
	m := regexp.MustCompile(set + `:\s*([0-9a-f]+)`).FindStringSubmatch(status)
	require.NotNil(t, m, status)
	v, err := strconv.ParseUint(m[1], 16, 64)
	require.NoError(t, err)
	return v
}
