//go:build !linux

package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("tun: not on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Interface is a Device of the host. There are none on this system.
type Interface struct{ _ [0]func() }

// Create returns an error that wraps errors.ErrUnsupported.
func Create(cfg Config) (*Interface, error) {
	if cfg.File != nil {
		_ = cfg.File.Close()
	}
	return nil, unsupported()
}

// Cleanup returns an error that wraps errors.ErrUnsupported.
func Cleanup(Config) error { return unsupported() }

// Name returns "".
func (i *Interface) Name() string { return "" }

// MTU returns 0.
func (i *Interface) MTU() int { return 0 }

// Queues returns the Interface.
func (i *Interface) Queues() []Device { return []Device{i} }

// BatchSize returns 1.
func (i *Interface) BatchSize() int { return 1 }

// Read returns an error that wraps errors.ErrUnsupported.
func (i *Interface) Read([][]byte, []int, int) (int, error) { return 0, unsupported() }

// Write returns an error that wraps errors.ErrUnsupported.
func (i *Interface) Write([][]byte, int) (int, error) { return 0, unsupported() }

// HasVirtio returns false.
func (i *Interface) HasVirtio() bool { return false }

// ReadVirtio returns an error that wraps errors.ErrUnsupported.
func (i *Interface) ReadVirtio([][]byte, []int, int) (int, error) { return 0, unsupported() }

// WriteVirtio returns an error that wraps errors.ErrUnsupported.
func (i *Interface) WriteVirtio([][]byte) error { return unsupported() }

// SetMTU returns an error that wraps errors.ErrUnsupported.
func (i *Interface) SetMTU(int) error { return unsupported() }

// SetLocals returns an error that wraps errors.ErrUnsupported.
func (i *Interface) SetLocals([]netip.Addr) error { return unsupported() }

// SetEIDs returns an error that wraps errors.ErrUnsupported.
func (i *Interface) SetEIDs([]netip.Prefix) error { return unsupported() }

// Repair returns an error that wraps errors.ErrUnsupported.
func (i *Interface) Repair() error { return unsupported() }

// Renew returns an error that wraps errors.ErrUnsupported.
func (i *Interface) Renew() error { return unsupported() }

// SetMarks returns an error that wraps errors.ErrUnsupported.
func (i *Interface) SetMarks([]uint32) ([]Marked, error) { return nil, unsupported() }

// Stats returns zeros.
func (i *Interface) Stats() Stats { return Stats{} }

// Close does nothing.
func (i *Interface) Close() error { return nil }

var _ Device = (*Interface)(nil)
