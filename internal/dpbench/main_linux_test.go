package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

func TestMain(m *testing.M) {
	if done, err := serveChild(os.Stdin, os.Stdout); done {
		exit(err)
	}
	netlab.Main(m)
}

// Every contender carries every kind of traffic.
func TestAllContenders(t *testing.T) {
	netlab.Require(t, netlab.Veth, netlab.TUN, netlab.PolicyRouting)
	var out, progress bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-rounds", "2", "-seconds", "0.1", "-pings", "5", "-json"}, &out, &progress), progress.String())
	var r report
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	for _, name := range contenderNames() {
		if slices.ContainsFunc(r.Skipped, func(s string) bool { return strings.HasPrefix(s, name+": ") }) {
			assert.True(t, name == kernelName || inKernel(name))
			continue
		}
		var datagrams float64
		for _, c := range columns {
			values := r.Values[name][c.key]
			require.Len(t, values, 2, "%s of %s", c.key, name)
			for _, v := range values {
				if strings.HasPrefix(c.key, "udp") {
					// On a busy machine no rate may be free of loss, and a flood's tenth of a
					// second may find nobody who reads.
					datagrams += v
				} else {
					assert.Positive(t, v, "%s of %s", c.key, name)
				}
			}
		}
		assert.Positive(t, datagrams, "datagrams of %s", name)
	}
	for _, name := range contenderNames() {
		assert.Contains(t, progress.String(), fmt.Sprintf("round 2/2 %-12s tcp1", name))
	}
}

func TestChoice(t *testing.T) {
	var out, progress bytes.Buffer
	for _, args := range [][]string{
		{"-contenders", "lisp,oor"}, {"-measures", "tcp2"}, {"-rounds", "0"}, {"-seconds", "-1"}, {"more"}, {"-unknown"},
	} {
		require.Error(t, run(t.Context(), args, &out, &progress), "%q", args)
	}
	got, err := choose("contenders", "lisp,veth", contenderNames())
	require.NoError(t, err)
	assert.Equal(t, []string{"veth", "lisp"}, got)
}

func TestReport(t *testing.T) {
	r := newReport(&options{rounds: 3, contenders: []string{kernelName, "lisp"}})
	m := measures[1]
	for i, v := range []float64{10e9, 20e9, 1e9} {
		r.add(kernelName, m, []float64{v})
		r.add("lisp", m, []float64{[]float64{5e9, 8e9, 1e9}[i]})
	}
	r.Skipped = []string{"x: y"}
	var out bytes.Buffer
	require.NoError(t, r.print(&out))
	lines := strings.Split(out.String(), "\n")
	assert.Equal(t, []string{"kernel", "10.00"}, strings.Fields(lines[1]))
	assert.Equal(t, []string{"lisp", "5.00"}, strings.Fields(lines[2]))
	assert.Equal(t, []string{"lisp", "0.50"}, strings.Fields(lines[6])) // the median of 0.5, 0.4 and 1
	assert.Contains(t, out.String(), "left out: x: y")
	assert.InDelta(t, 2.5, median([]float64{4, 1, 2, 3}), 1e-9)
}
