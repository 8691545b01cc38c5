package ebpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Probe reports why a Dataplane can't be used on this host; nil if it can. The error
// wraps ErrUnsupported and names the reason. It loads the programs and attaches
// none.
func Probe() error {
	objs, err := load(&Config{MaxEntries: 2, MaxLocators: 2, MaxSets: 2})
	if err != nil {
		return fmt.Errorf("ebpf: %s: %w", whyNot(err, kernelVersion()), errors.Join(err, ErrUnsupported))
	}
	return objs.Close()
}

// oldest is the first version of Linux that the programs are for.
const oldest = 5<<16 | 15<<8

// kernelVersion has a byte for each part of it; 0 if it is not known.
func kernelVersion() uint32 {
	v, err := features.LinuxVersionCode()
	if err != nil {
		return 0
	}
	return v
}

// whyNot says in plain words what a kernel of a version means that refuses our programs.
func whyNot(err error, version uint32) string {
	var verifier *ebpf.VerifierError
	switch {
	case version > 0 && version < oldest:
		return fmt.Sprintf("the kernel is too old: it is Linux %d.%d, and BPF takes 5.15 here", version>>16, version>>8&0xff)
	case errors.As(err, &verifier):
		return "the kernel's verifier refuses the programs; it may be too old"
	case errors.Is(err, unix.EPERM), errors.Is(err, os.ErrPermission):
		if inUserNamespace() {
			return "BPF is refused in a user namespace"
		}
		return "BPF takes root (CAP_BPF and CAP_NET_ADMIN)"
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS):
		return "the kernel has no BPF, or is too old"
	}
	return "BPF does not work here"
}

// inUserNamespace tells whether root here is not root of the machine.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var inside, outside, n uint32
	if _, err := fmt.Sscan(string(b), &inside, &outside, &n); err != nil {
		return false
	}
	return inside != 0 || outside != 0 || n != 1<<32-1
}
