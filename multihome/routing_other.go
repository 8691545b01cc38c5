//go:build !linux

package multihome

import "net/netip"

// Routing is there on Linux only.
type Routing struct{}

// NewRouting fails: the error wraps errors.ErrUnsupported.
func NewRouting(RoutingConfig) (*Routing, error) { return nil, errUnsupported }

// Set does nothing.
func (*Routing) Set([]Interface, []netip.Addr) error { return errUnsupported }

// Close does nothing.
func (*Routing) Close() error { return nil }
