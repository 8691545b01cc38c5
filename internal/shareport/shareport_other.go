//go:build !linux

package shareport

import "errors"

// Allow is for Linux.
func Allow(int) error { return errors.ErrUnsupported }

// Keep is for Linux.
func Keep(int, int, bool) error { return errors.ErrUnsupported }

// Discard is for Linux.
func Discard(int) error { return errors.ErrUnsupported }
