package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/tun"
)

// TestGracefulStart: a first graceful start that fails leaves nothing; a node with two
// uplinks starts again after a graceful end; and one that forwards in user space ends
// what the kernel went on with.
func TestGracefulStart(t *testing.T) {
	d := strict(t, loneLab(t, demoOptions{multihome: true}))
	ownBPFFS(t)
	a, config := d.hosts["a"], d.patternConfig(multiA, "dataplane = ebpf\n")
	pinned := func() []string {
		files, err := filepath.Glob(filepath.Join(ebpf.DefaultPinDir, "*", "*"))
		require.NoError(t, err)
		return files
	}
	start := func(config string, args ...string) {
		t.Helper()
		_, err := d.start(t.Context(), "a", config, args...)
		require.NoError(t, err)
		_, err = d.children["a"].ready(t.Context())
		require.NoError(t, err)
	}

	eth1, err := a.Netlink().LinkByName("eth1")
	require.NoError(t, err)
	table := fmt.Sprint(multihome.DefaultTableBase + eth1.Attrs().Index)
	fails := func(config string, why ...string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "node.conf")
		require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := a.Self(ctx, "-graceful", "-f", file)
		cmd.Env = append(os.Environ(), envChild+"=1")
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		for _, w := range why {
			assert.Contains(t, string(out), w)
		}
		require.NoError(t, d.checkClean(multiA))
		assert.Empty(t, pinned())
		assert.Empty(t, a.MustRun("ip", "route", "show", "table", "all", "proto", "245"))
	}
	taken, err := a.ListenPacket("udp4", ":4342")
	require.NoError(t, err)
	fails(config, "UDP port 4342 is in use") // at once
	require.NoError(t, taken.Close())
	// And last of all, when programs are pinned and routes are set.
	// There is room for the devices of two marks, and one more is needed.
	tables := filepath.Join(t.TempDir(), "tables")
	var batch strings.Builder
	for i := 2; i < 256; i++ {
		fmt.Fprintf(&batch, "route add unreachable 192.0.2.0/24 table %d\n", tun.DefaultMarkTable+i)
	}
	require.NoError(t, os.WriteFile(tables, []byte(batch.String()), 0o600))
	a.MustRun("ip", "-batch", tables)
	fails(config+marksOn, "packets are forwarded in the kernel", "firewall marks: tun: set marks: ")
	require.NoError(t, os.WriteFile(tables, []byte(strings.ReplaceAll(batch.String(), "add", "del")), 0o600))
	a.MustRun("ip", "-batch", tables)

	for range 2 {
		start(config, "-graceful")
		assert.NotEmpty(t, a.MustRun("ip", "route", "show", "table", table))
		require.NoError(t, d.children["a"].stop())
		require.Error(t, d.checkClean(multiA))
		assert.NotEmpty(t, pinned())
	}
	start(strings.Replace(config, "dataplane = ebpf", "dataplane = user", 1))
	assert.Empty(t, pinned())
	require.NoError(t, d.children["a"].stop())
	require.NoError(t, d.checkClean(multiA))
}
