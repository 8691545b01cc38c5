//go:build race

package netsim_test

// Stepping is one goroutine's work, in which the race detector finds nothing but
// takes its time.
const (
	many  = 30
	crowd = 8
	slow  = 4
)
