package ebpf

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Who is root of a user namespace only, or of nothing, is told why it can't be.
func TestProbe(t *testing.T) {
	requireBPF(t)
	assert.NoError(t, Probe())
	for name, attr := range map[string]*syscall.SysProcAttr{
		"BPF is refused in a user namespace": {
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		},
		"BPF takes root (CAP_BPF and CAP_NET_ADMIN)": {Credential: &syscall.Credential{Uid: 65534, Gid: 65534}},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.SysProcAttr = append(os.Environ(), envVictim+"=probe"), attr
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Contains(t, string(out), "ebpf: "+name)
	}
}

// What a kernel means that is older than the programs is said by its version: those
// before 5.11 say that it is not permitted.
func TestWhyNot(t *testing.T) {
	for _, c := range []struct {
		err     error
		version uint32
		want    string
	}{
		{unix.EPERM, 5<<16 | 10<<8 | 255, "the kernel is too old: it is Linux 5.10, and BPF takes 5.15 here"},
		{new(ebpf.VerifierError), 4<<16 | 19<<8, "the kernel is too old: it is Linux 4.19, and BPF takes 5.15 here"},
		{new(ebpf.VerifierError), 5<<16 | 15<<8, "the kernel's verifier refuses the programs; it may be too old"},
		{unix.ENOSYS, 0, "the kernel has no BPF, or is too old"},
		{unix.EINVAL, 6<<16 | 1<<8, "BPF does not work here"},
	} {
		assert.Equal(t, c.want, whyNot(fmt.Errorf("load: %w", c.err), c.version))
	}
}
