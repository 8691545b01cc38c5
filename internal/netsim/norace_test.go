//go:build !race

package netsim_test

const (
	many  = 1000 // xTRs, where there are many
	crowd = 30   // xTRs that all talk to each other
	slow  = 1    // by which long times are divided
)
