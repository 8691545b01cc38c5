package ebpf

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
