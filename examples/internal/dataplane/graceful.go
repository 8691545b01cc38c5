package dataplane

import (
	"log/slog"
	"time"

	"github.com/xtrkit/xtrkit/encap/ebpf"
)

// Linger is how long packets go on in the kernel when who controls them has ended; 0:
// they don't. graceful says that they should, probe whether they can:
// ebpf.ProbePersist.
func Linger(graceful, inKernel bool, probe func(pinDir string) error, log *slog.Logger) time.Duration {
	switch {
	case !graceful:
		return 0
	case !inKernel:
		log.Warn("graceful is of no use where packets are forwarded in user space: they stop when the program ends")
		return 0
	}
	if err := probe(""); err != nil {
		log.Warn("graceful is not possible here: packets stop when the program ends", "err", err)
		return 0
	}
	return ebpf.DefaultLinger
}
