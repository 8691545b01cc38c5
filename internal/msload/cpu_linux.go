package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is the processor time that the process has taken, that of its threads in
// the kernel included.
func (c *child) cpu() time.Duration {
	if c == nil {
		return 0
	}
	const perProcess = 2 // CPUCLOCK_SCHED of clock_getcpuclockid(3)
	var ts unix.Timespec
	if unix.ClockGettime(int32(^c.cmd.Process.Pid)<<3|perProcess, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// memory is what of the process is in memory.
func (c *child) memory() string {
	if c == nil {
		return "-"
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return "-"
	}
	for line := range strings.Lines(string(b)) {
		if rss, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(rss)
		}
	}
	return "-"
}
