//go:build race

package mapserver

const raceEnabled = true
