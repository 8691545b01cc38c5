//go:build !linux

package netlab

import (
	"errors"
	"os"
	"runtime"
)

func unsupported() error {
	return &MissingFeatureError{Feature: NetworkNamespaces, Err: errors.New("not on " + runtime.GOOS)}
}

// Enter returns an error that wraps errors.ErrUnsupported: there are no network
// namespaces on this system.
func Enter() error { return unsupported() }

// Inside reports false.
func Inside() bool { return false }

// Probe returns an error that wraps errors.ErrUnsupported.
func Probe(...Feature) error { return unsupported() }

// Main runs the tests of m in place and exits.
func Main(m interface{ Run() int }) { os.Exit(m.Run()) }
