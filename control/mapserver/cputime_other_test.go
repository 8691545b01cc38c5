//go:build !linux

package mapserver

import "time"

var began = time.Now()

func cpuTime() time.Duration    { return time.Since(began) }
func threadTime() time.Duration { return time.Since(began) }
