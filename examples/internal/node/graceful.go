package node

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/dataplane"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

// createDevice makes the device. end is for a start that fails: nothing stays of it but
// what an earlier process has left, by which packets go on.
func (n *Node) createDevice(inKernel bool) (end func() error, err error) {
	if !inKernel {
		dataplane.EndKernel(n.log)
	}
	cfg := deviceConfig(n.conf, n.log)
	cfg.Linger = n.linger
	_, errBefore := net.InterfaceByName(cmp.Or(cfg.Name, tun.DefaultName))
	if n.device, err = tun.Create(cfg); err != nil {
		return nil, err
	}
	return func() error {
		err := n.device.Close()
		if n.linger > 0 && errBefore != nil {
			err = errors.Join(err, sweep(n.conf))
		}
		return err
	}, nil
}

// withdrawal is how long the node waits when it ends for Map-Servers to acknowledge
// that it withdraws; negative: it does not, since it comes back.
func withdrawal(linger time.Duration) time.Duration {
	if linger > 0 {
		return -1
	}
	return 0 // the default
}

// inherit puts what the programs in the kernel have of an earlier process's map-cache
// into ours.
func (n *Node) inherit() error {
	carried := n.fast.Carried()
	now := time.Now()
	stored, err := n.engine.Import(now, func(yield func(mapcache.Saved) bool) {
		for _, m := range carried {
			if !yield(mapcache.Saved{Mapping: m, Left: m.TTL, Taken: now}) {
				return
			}
		}
	})
	if len(carried) > 0 {
		n.log.Info("mappings of an earlier process are in use", "mappings", stored, "of", len(carried))
	}
	return err
}

// lingering is a data plane whose device must be told, too, that we are alive.
type lingering struct {
	plane
	device *tun.Interface
	log    *slog.Logger
}

// Usage is called every few seconds.
func (l lingering) Usage(report func(mapcache.Usage)) {
	l.plane.Usage(report)
	if err := l.device.Renew(); err != nil && !errors.Is(err, os.ErrClosed) {
		l.log.Error("the addresses of the device will be gone", "err", err)
	}
}
