package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// envHelper makes the test program do something else than testing.
const envHelper = "NETLAB_TEST_HELPER"

func helperEnv(what string, more ...string) []string {
	// The race detector would have every helper linger for a second at its end.
	return append(append(os.Environ(), envHelper+"="+what, "GORACE=atexit_sleep_ms=0"), more...)
}

// runHelper does what envHelper says and exits; without it, it returns.
func runHelper() {
	what := os.Getenv(envHelper)
	switch what {
	case "":
		return
	case "addresses":
		addrs, err := net.InterfaceAddrs()
		fmt.Println(addrs, err)
		os.Exit(0)
	case "wait":
		fmt.Println("ready")
		select {}
	case "orphan": // leaves a process behind that nobody's death signal covers
		c := exec.Command("/proc/self/exe")
		c.Env = helperEnv("wait")
		fmt.Println(c.Start() == nil, "orphan", c.Process.Pid)
		os.Exit(0)
	}
	if path := os.Getenv("NETLAB_TEST_LIMIT"); path != "" {
		if err := os.WriteFile(path, []byte("0"), 0); err != nil {
			fmt.Println("error", err)
			os.Exit(2)
		}
	}
	fmt.Println("outer", os.Getpid())
	if err := Enter(); err != nil {
		fmt.Println("error", err)
		os.Exit(2)
	}
	fmt.Println("inner", os.Getpid(), mode)
	lab := New(context.Background())
	a, b := lab.Host("a"), lab.Host("b")
	lab.Link(a, b, LinkConfig{A: At("10.0.0.1/24"), B: At("10.0.0.2/24"), Delay: time.Millisecond})
	program := a.Self(context.Background())
	program.Env = helperEnv("wait")
	err := program.Start()
	orphan := b.Self(context.Background())
	orphan.Env = helperEnv("orphan")
	orphan.Stdout = os.Stdout
	err = errors.Join(err, orphan.Run(), lab.Err())
	if err != nil {
		fmt.Println("error", err)
		os.Exit(2)
	}
	fmt.Println("program", program.Process.Pid)
	fmt.Println("enter:", a.Enter())
	switch what {
	case "exit":
		_ = lab.Close()
		os.Exit(7)
	case "panic":
		panic("as programs do")
	case "signal":
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		fmt.Println("ready")
		<-c
		_ = lab.Close()
		os.Exit(9)
	}
	fmt.Println("ready")
	select {}
}

// helper is a running helper process and what it said of its processes.
type helper struct {
	cmd  *exec.Cmd
	out  *bufio.Scanner
	pids map[string]int
	said []string
}

func startHelper(t *testing.T, what string, env ...string) *helper {
	Require(t, Veth)
	h := &helper{cmd: exec.Command("/proc/self/exe"), pids: map[string]int{}}
	h.cmd.Env = helperEnv(what, env...)
	h.cmd.Stderr = nil
	out, err := h.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, h.cmd.Start())
	t.Cleanup(func() { _ = h.cmd.Process.Kill() })
	h.out = bufio.NewScanner(out)
	return h
}

// read takes lines until the helper is ready or ends.
func (h *helper) read(t *testing.T) {
	for h.out.Scan() {
		line := h.out.Text()
		h.said = append(h.said, line)
		require.False(t, strings.HasPrefix(line, "error"), line)
		if line == "ready" {
			break
		}
		words := strings.Fields(strings.TrimPrefix(line, "true "))
		if len(words) > 1 {
			if pid, err := strconv.Atoi(words[1]); err == nil {
				h.pids[words[0]] = pid
			}
		}
	}
}

// gone reports whether a process has ended.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// A zombie holds nothing any more; it waits for its parent only.
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func (h *helper) requireAllGone(t *testing.T) {
	t.Helper()
	require.Subset(t, []string{"outer", "inner", "program", "orphan"}, keys(h.pids))
	require.Len(t, h.pids, 4, "%q", h.said)
	for name, pid := range h.pids {
		require.NoError(t, Eventually(context.Background(), fmt.Sprintf("the end of process %s %d", name, pid), func() bool { return gone(pid) }))
	}
}

func keys(m map[string]int) (ks []string) {
	for k := range m {
		ks = append(ks, k)
	}
	return ks
}

func TestNothingIsLeft(t *testing.T) {
	for _, mode := range []string{modeRoot, modeUserns} {
		env := EnvMode + "=" + mode
		t.Run(mode, func(t *testing.T) {
			t.Run("after exit, whose code is handed on", func(t *testing.T) {
				h := startHelper(t, "exit", env)
				h.read(t)
				var exit *exec.ExitError
				require.ErrorAs(t, h.cmd.Wait(), &exit)
				assert.Equal(t, 7, exit.ExitCode())
				h.requireAllGone(t)
			})
			t.Run("after a panic", func(t *testing.T) {
				h := startHelper(t, "panic", env)
				h.read(t)
				var exit *exec.ExitError
				require.ErrorAs(t, h.cmd.Wait(), &exit)
				assert.Equal(t, 2, exit.ExitCode())
				h.requireAllGone(t)
			})
			t.Run("after kill -9 of the lab", func(t *testing.T) {
				h := startHelper(t, "wait inside", env)
				h.read(t)
				require.NoError(t, unix.Kill(h.pids["inner"], unix.SIGKILL))
				var exit *exec.ExitError
				require.ErrorAs(t, h.cmd.Wait(), &exit)
				assert.Equal(t, 128+9, exit.ExitCode())
				h.requireAllGone(t)
			})
			t.Run("after kill -9 of the program that was started", func(t *testing.T) {
				h := startHelper(t, "wait inside", env)
				h.read(t)
				orphan := h.pids["orphan"]
				t.Cleanup(func() { _ = unix.Kill(orphan, unix.SIGKILL) })
				require.NoError(t, h.cmd.Process.Kill())
				_ = h.cmd.Wait()
				delete(h.pids, "orphan")
				for name, pid := range h.pids {
					require.NoError(t, Eventually(t.Context(), "the end of process "+name, func() bool { return gone(pid) }))
				}
			})
			t.Run("after a signal, which is handed on", func(t *testing.T) {
				h := startHelper(t, "signal", env)
				h.read(t)
				require.NoError(t, h.cmd.Process.Signal(unix.SIGTERM))
				var exit *exec.ExitError
				require.ErrorAs(t, h.cmd.Wait(), &exit)
				assert.Equal(t, 9, exit.ExitCode())
				h.requireAllGone(t)
			})
		})
	}
}

func TestTheMachineIsNotTouched(t *testing.T) {
	look := func() string {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		links, err := net.Interfaces()
		require.NoError(t, err)
		sysctl, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		require.NoError(t, err)
		return fmt.Sprintf("%s%v%s", mounts, links, sysctl)
	}
	before := look()
	for _, mode := range []string{modeRoot, modeUserns} {
		h := startHelper(t, "wait inside", EnvMode+"="+mode)
		h.read(t)
		assert.Equal(t, before, look())
	}
}

// TestInUserNamespace runs the lab's tests once more, without real root.
func TestInUserNamespace(t *testing.T) {
	Require(t, Veth)
	if mode == modeUserns {
		return // they run there anyway
	}
	c := exec.Command("/proc/self/exe", "-test.run", "^(TestForwarding|TestTCPAcross|TestDrop|TestMasquerade|TestCapture|TestSysctl|TestInterfaceChanges|TestPrograms)")
	c.Env = append(os.Environ(), EnvMode+"="+modeUserns, "GORACE=atexit_sleep_ms=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestEnterCommand(t *testing.T) {
	RequireProgram(t, "nsenter")
	for _, mode := range []string{modeRoot, modeUserns} {
		t.Run(mode, func(t *testing.T) {
			h := startHelper(t, "wait inside", EnvMode+"="+mode)
			h.read(t)
			i := slices.IndexFunc(h.said, func(s string) bool { return strings.HasPrefix(s, "enter: ") })
			require.GreaterOrEqual(t, i, 0, "%q", h.said)
			args := append(strings.Fields(h.said[i])[1:], "cat", "/proc/thread-self/net/fib_trie")
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Contains(t, string(out), "10.0.0.1")
		})
	}
}

func TestLeakedMarkerIsIgnored(t *testing.T) {
	// The marker names the namespace we are in: it cannot be ours.
	ino, err := netnsInode("/proc/self/ns/net")
	require.NoError(t, err)
	h := startHelper(t, "exit", fmt.Sprintf("%s=root:%d", envInside, ino))
	h.read(t)
	var exit *exec.ExitError
	require.ErrorAs(t, h.cmd.Wait(), &exit)
	assert.Equal(t, 7, exit.ExitCode())
	h.requireAllGone(t)
}

func TestNoNamespaces(t *testing.T) {
	Require(t, Veth)
	// In a user namespace of its own the limit can be set to none.
	const limit = "/proc/sys/user/max_user_namespaces"
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = helperEnv("exit", EnvMode+"="+modeUserns, "NETLAB_TEST_LIMIT="+limit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "missing system feature: user namespaces: ")
	assert.Contains(t, string(out), "user.max_user_namespaces is 0")
}

func TestMissingFeature(t *testing.T) {
	err := error(&MissingFeatureError{Feature: TUN, Err: unix.ENOENT, Hint: "load it"})
	assert.ErrorIs(t, err, unix.ENOENT)
	assert.ErrorIs(t, err, errors.ErrUnsupported)
	assert.EqualError(t, err, "missing system feature: TUN devices: no such file or directory (load it)")
	assert.Error(t, Probe("no such thing"))
}
