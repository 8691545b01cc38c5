//go:build race

package netsim_test

// many is how many xTRs there are where there are many. Stepping is one
// goroutine's work, in which the race detector finds nothing but takes its time.
const many = 30
