package ebpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Probe reports why a Dataplane can't be used on this host; nil if it can. The error
// wraps ErrUnsupported and names the reason. It loads the programs and attaches
// none.
func Probe() error {
	objs, err := load(&Config{MaxEntries: 2, MaxLocators: 2, MaxSets: 2})
	if err != nil {
		return fmt.Errorf("ebpf: %s: %w", whyNot(err), errors.Join(err, ErrUnsupported))
	}
	return objs.Close()
}

// whyNot says in plain words what a kernel means that refuses our programs.
func whyNot(err error) string {
	var verifier *ebpf.VerifierError
	switch {
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
