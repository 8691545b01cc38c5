//go:build !race

package netsim_test

const many = 100
