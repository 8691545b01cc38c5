package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/multihome"
)

// TestStartsThoughRefused: what the system refuses of an uplink's routes when a node
// starts, be it that a link goes at that moment, keeps no other uplink from being used,
// and is tried again without anything happening.
func TestStartsThoughRefused(t *testing.T) {
	d := multihomeLab(t)
	a := d.hosts["a"]
	link, err := a.Netlink().LinkByName("eth0")
	require.NoError(t, err)
	table := fmt.Sprint(multihome.DefaultTableBase + link.Attrs().Index)
	a.MustRun("ip", "route", "add", "default", "dev", "lo", "table", table)
	startNodes(t, d, func(s site) string { return d.patternConfig(s, "") }, multiA)
	node := d.children["a"]
	st, err := node.ready(t.Context())
	require.NoError(t, err)
	require.Len(t, st.Node.Refused, 1)
	assert.Equal(t, "routes of the uplinks", st.Node.Refused[0].What)
	assert.Contains(t, st.Node.Refused[0].Reason, "default route of table "+table+": file exists")

	a.MustRun("ip", "route", "del", "default", "table", table) // of no interest to multihome.Netlink
	require.NoError(t, netlab.Eventually(t.Context(), "nothing to be refused", func() bool {
		st, err := node.ready(t.Context())
		return err == nil && len(st.Node.Refused) == 0
	}))
	assert.Contains(t, a.MustRun("ip", "route", "show", "table", table), "dev eth0")
	require.NoError(t, node.stop())
	require.NoError(t, d.checkClean(multiA))
}
