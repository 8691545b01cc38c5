package netlab

import (
	"errors"
	"fmt"
	"os"
)

// Feature is something of the system that a lab needs.
type Feature string

// Features. NetworkNamespaces stands for all that Enter needs.
const (
	NetworkNamespaces Feature = "network namespaces"
	UserNamespaces    Feature = "user namespaces"
	Veth              Feature = "veth devices"
	IPv6              Feature = "IPv6"
	TUN               Feature = "TUN devices"
	PolicyRouting     Feature = "policy routing (several routing tables)"
	PacketSockets     Feature = "packet sockets"
	NAT               Feature = "nftables masquerade"
	ConntrackFlush    Feature = "flushing conntrack"
	WritableSysctl    Feature = "writable /proc/sys/net"
)

// MissingFeatureError says which feature of the system a lab needs and does not get.
// It wraps the system's error and errors.ErrUnsupported.
type MissingFeatureError struct {
	Feature Feature
	Err     error  // what the system said
	Hint    string // what to look at, or empty
}

func (e *MissingFeatureError) Error() string {
	s := fmt.Sprintf("missing system feature: %s: %v", e.Feature, e.Err)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the system's error and errors.ErrUnsupported.
func (e *MissingFeatureError) Unwrap() []error { return []error{e.Err, errors.ErrUnsupported} }

// Environment variables that the package reads.
const (
	// EnvMode is set to "userns" to use a user namespace even as root.
	EnvMode = "XTRKIT_NETLAB"
	// EnvRequire is set to "1" to fail, rather than skip, tests that cannot
	// have their lab.
	EnvRequire = "XTRKIT_REQUIRE_PRIVILEGED"
)

// TB is the part of testing.TB that a lab needs; *testing.T and *testing.B have it.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
}

// Require skips the test, saying which feature is missing, unless the process is
// in namespaces of its own (see Main) and all of features work there. With
// XTRKIT_REQUIRE_PRIVILEGED=1 it fails the test instead of skipping it.
func Require(tb TB, features ...Feature) {
	tb.Helper()
	err := Probe(features...)
	if err == nil {
		return
	}
	if os.Getenv(EnvRequire) == "1" {
		tb.Fatalf("%s=1, and %v", EnvRequire, err)
	}
	tb.Skipf("needs namespaces: %v", err)
}
