//go:build !linux

package multihome

import (
	"context"
	"errors"
	"fmt"
)

// NetlinkConfig makes a Netlink.
type NetlinkConfig struct {
	Protocol uint8
	Devices  []string
}

// Netlink is there on Linux only.
type Netlink struct{}

// NewNetlink fails: the error wraps errors.ErrUnsupported.
func NewNetlink(NetlinkConfig) (*Netlink, error) { return nil, errUnsupported }

var errUnsupported = fmt.Errorf("multihome: interfaces can be watched on Linux only: %w", errors.ErrUnsupported)

// Next implements Source.
func (*Netlink) Next(context.Context) (Snapshot, error) { return Snapshot{}, errUnsupported }

// Overruns returns 0.
func (*Netlink) Overruns() uint64 { return 0 }

// Close does nothing.
func (*Netlink) Close() error { return nil }
