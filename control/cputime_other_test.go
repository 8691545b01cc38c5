//go:build !linux

package control

import (
	"testing"
	"time"
)

var processStart = time.Now()

// cpuTime is the time since the start, where the processor time is not known.
func cpuTime(testing.TB) time.Duration { return time.Since(processStart) }
