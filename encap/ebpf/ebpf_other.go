//go:build !linux

package ebpf

import (
	"fmt"
	"runtime"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Dataplane is the data plane in the kernel. There is none on this system: New
// always fails.
type Dataplane struct{ *encap.Forwarder }

func unsupported() error { return fmt.Errorf("ebpf: not on %s: %w", runtime.GOOS, ErrUnsupported) }

// Probe returns why a Dataplane can't be used: it needs Linux.
func Probe() error { return unsupported() }

// ProbePersist fails: it needs Linux.
func ProbePersist(string) error { return unsupported() }

// New fails: it needs Linux.
func New(cfg Config) (*Dataplane, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return nil, unsupported()
}

// Cleanup has nothing to remove.
func Cleanup(...string) (int, error) { return 0, nil }

// Carried returns nothing.
func (d *Dataplane) Carried() []mapcache.Mapping { return nil }

// SetLANs fails: it needs Linux.
func (d *Dataplane) SetLANs([]LAN) error { return unsupported() }

// AddDevice fails: it needs Linux.
func (d *Dataplane) AddDevice(uint32, string) error { return unsupported() }

// SetSignals is that of the Forwarder.
func (d *Dataplane) SetSignals(s mapcache.Signals) { d.Forwarder.SetSignals(s) }

// Stats is that of the Forwarder.
func (d *Dataplane) Stats() Stats { return Stats{Stats: d.Forwarder.Stats()} }
