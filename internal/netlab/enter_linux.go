package netlab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// envInside marks the re-executed process. Its value is the mode and the inode of
// the network namespace that was left, so that a variable that leaked into an
// ordinary environment does not make us build a lab on the host itself.
const envInside = "XTRKIT_NETLAB_INSIDE"

// The modes of the re-executed process.
const (
	modeRoot   = "root"
	modeUserns = "userns"
)

// statusFD is where the re-executed process says whether its set-up worked.
const statusFD = 3

var (
	inside bool   // this process is the re-executed one
	mode   string // modeRoot or modeUserns, if inside
	// errEnter is why Main could not enter; Probe reports it.
	errEnter error
)

// Inside reports whether the process is in namespaces of its own.
func Inside() bool { return inside }

// Main is TestMain's body: it runs the tests of m in namespaces of their own,
// and exits. Where that is impossible it runs them in place, and Require tells
// them why. Fuzzing runs in place too: a fuzzer talks to its worker processes by
// file descriptors, which do not survive the way into a namespace.
func Main(m interface{ Run() int }) {
	if fuzzing(os.Args) {
		os.Exit(m.Run())
	}
	errEnter = Enter()
	os.Exit(m.Run())
}

func fuzzing(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") })
}

// Enter moves the program into network and mount namespaces of its own, with a
// user namespace around them if it has to be. Call it at the start of main,
// before anything else has an effect: it starts the same executable again, with
// the same arguments, environment and standard files, hands on signals, and exits
// with that process's exit code (128 + n if signal n killed it). In the new
// process Enter returns nil at once.
//
// The error is a *MissingFeatureError if the system does not let us.
func Enter() error {
	if inside {
		return nil
	}
	if mark, ok := os.LookupEnv(envInside); ok {
		// Programs started from here must not believe that they are us.
		_ = os.Unsetenv(envInside)
		m, outer, _ := strings.Cut(mark, ":")
		if ino, err := netnsInode("/proc/self/ns/net"); err == nil && outer != "" && strconv.FormatUint(ino, 10) != outer {
			return arrive(m)
		}
	}
	if os.Geteuid() == 0 && os.Getenv(EnvMode) != modeUserns {
		err := leave(modeRoot)
		if !errors.Is(err, unix.EPERM) {
			return err
		}
		// Root in a container often may not make namespaces, except inside a
		// user namespace. This returns only if that fails too.
		_ = leave(modeUserns)
		return err
	}
	return leave(modeUserns)
}

func netnsInode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return st.Ino, nil
}

// arrive sets up the re-executed process and tells the other one how it went.
func arrive(m string) error {
	status := os.NewFile(statusFD, "netlab-status")
	if err := setUpInside(); err != nil {
		_, _ = io.WriteString(status, err.Error())
		_ = status.Close()
		os.Exit(1)
	}
	_, _ = io.WriteString(status, "ok")
	_ = status.Close()
	inside, mode = true, m
	return nil
}

func setUpInside() error {
	// Nothing that is mounted here may show outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The process's own namespace is not a host of the lab, but code that is
	// tested beside the lab expects a loopback interface.
	if err := setLoopbackUp(); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	return nil
}

// leave starts the executable again in new namespaces. It returns only if that
// process could not be set up.
func leave(m string) error {
	outer, err := netnsInode("/proc/self/ns/net")
	if err != nil {
		return &MissingFeatureError{Feature: NetworkNamespaces, Err: err, Hint: "is /proc mounted?"}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("netlab: %w", err)
	}
	defer func() { _ = r.Close() }()

	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:gosec // ourselves, with our arguments
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envInside+"="+m+":"+strconv.FormatUint(outer, 10))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w} // statusFD
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	if m == modeUserns {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}

	// Signals are taken before the start, so that none is lost in between, and
	// the death signal is tied to the thread that starts the process, which
	// therefore has to stay.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	runtime.LockOSThread()
	own := children()
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	giveUp := func(err error) error {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
		signal.Stop(signals)
		runtime.UnlockOSThread()
		return missingNamespaces(m, err)
	}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return giveUp(err)
	}
	done := make(chan struct{})
	go forward(signals, cmd.Process, done)
	said, _ := io.ReadAll(r)
	waitErr := cmd.Wait()
	close(done)
	if string(said) != "ok" {
		if len(said) == 0 {
			said = fmt.Appendf(nil, "the new process ended early: %v", waitErr)
		}
		return giveUp(fmt.Errorf("%s: %w", said, unix.EPERM))
	}
	killOrphans(own)
	state := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if state.Signaled() {
		os.Exit(128 + int(state.Signal()))
	}
	os.Exit(state.ExitStatus())
	return nil
}

// forward hands signals on to p. What the terminal sends goes to the whole
// foreground process group, of which p is a member: handing that on would
// deliver it twice.
func forward(signals <-chan os.Signal, p *os.Process, done <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			if (s == unix.SIGINT || s == unix.SIGQUIT) && inForeground() {
				continue
			}
			_ = p.Signal(s)
		case <-done:
			return
		}
	}
}

func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer func() { _ = tty.Close() }()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// children returns the process ids of our children.
func children() map[int]bool {
	found := map[int]bool{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return found
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The command's name is in parentheses and may hold anything.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			found[pid] = true
		}
	}
	return found
}

// killOrphans ends what programs in the lab left behind: grandchildren are not
// covered by the death signal, but come to us, their subreaper, when their
// parents die. own are children that we had before.
func killOrphans(own map[int]bool) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		left := 0
		for pid := range children() {
			if own[pid] {
				continue
			}
			left++
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
		if left == 0 {
			return
		}
	}
}

// missingNamespaces explains why making namespaces failed.
func missingNamespaces(m string, err error) error {
	missing := &MissingFeatureError{Feature: NetworkNamespaces, Err: err}
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	switch {
	case m != modeUserns && errors.Is(err, unix.EPERM):
		missing.Hint = "root lacks CAP_SYS_ADMIN, as in a container; give it that capability"
	case m != modeUserns:
		missing.Hint = "is the kernel built with CONFIG_NET_NS?"
	default:
		missing.Feature = UserNamespaces
		switch {
		case read("/proc/sys/user/max_user_namespaces") == "0":
			missing.Hint = "sysctl user.max_user_namespaces is 0; raise it, or run as root"
		case read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
			missing.Hint = "sysctl kernel.unprivileged_userns_clone is 0; set it to 1, or run as root"
		case read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
			missing.Hint = "sysctl kernel.apparmor_restrict_unprivileged_userns is 1; set it to 0, or run as root"
		case errors.Is(err, unix.EINVAL):
			missing.Hint = "is the kernel built with CONFIG_USER_NS? else run as root"
		default:
			missing.Hint = "a container or security module may forbid it; run as root"
		}
	}
	return missing
}
