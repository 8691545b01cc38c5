//go:build !linux

package encap

import (
	"errors"
	"fmt"
	"runtime"
)

// NewUDP is for Linux only.
func NewUDP(UDPConfig) (Underlay, error) {
	return nil, fmt.Errorf("encap: UDP underlay on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// NewICMP is for Linux only.
func NewICMP() ([]ICMPReceiver, error) {
	return nil, fmt.Errorf("encap: ICMP errors on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// NewNative is for Linux only.
func NewNative() (NativeSender, error) {
	return nil, fmt.Errorf("encap: native forwarding on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
