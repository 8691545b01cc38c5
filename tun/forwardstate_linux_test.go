package tun

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRouterAfterKill: the next process, or Cleanup, puts back the sysctls of a
// router that was killed, as they were before the first of them.
func TestRouterAfterKill(t *testing.T) {
	n := newNetwork(t)
	n.node.Sysctl("net/ipv6/conf/eth0/accept_ra", "1")
	n.node.Sysctl("net/ipv4/conf/eth0/forwarding", "1") // an exception that must survive
	n.node.Sysctl("net/ipv4/conf/all/accept_redirects", "0")
	before := forwardingState(t, n.node)
	var file string
	require.NoError(t, n.node.Do(func() (err error) {
		file, err = stateFile("lmn0")
		return err
	}))
	router := func() map[string]string {
		killed(t, n, "router")
		now := forwardingState(t, n.node)
		require.Equal(t, "1", now["ipv4/ip_forward"])
		require.Equal(t, "1", now["ipv6/conf/all/forwarding"])
		require.FileExists(t, file)
		return now
	}

	router()
	require.NoError(t, n.node.Do(func() error { return Cleanup(routerConfig) }))
	assert.Equal(t, before, forwardingState(t, n.node))
	assert.NoFileExists(t, file)

	router()
	router() // the second one finds the first one's
	i := create(t, n.node, nodeConfig)
	assert.NoFileExists(t, file)
	require.NoError(t, i.Close())
	assert.Equal(t, before, forwardingState(t, n.node), "a node that is no router any more")

	i = create(t, n.node, routerConfig)
	require.FileExists(t, file)
	require.NoError(t, i.Close())
	assert.NoFileExists(t, file)
	assert.Equal(t, before, forwardingState(t, n.node))

	// Another device's router is not that of this one.
	left := router()
	other := routerConfig
	other.Name = "other"
	require.NoError(t, n.node.Do(func() error { return Cleanup(other) }))
	assert.Equal(t, left, forwardingState(t, n.node))
	require.NoError(t, n.node.Do(func() error { return Cleanup(routerConfig) }))
}

// TestSavedForwardingIsChecked: a file that somebody else has written changes
// nothing but what it is about.
func TestSavedForwardingIsChecked(t *testing.T) {
	n := newNetwork(t)
	before := forwardingState(t, n.node)
	require.NoError(t, n.node.Do(func() error {
		file, err := stateFile("lmn0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.Remove(file); _ = os.Remove(file + damaged) })
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		var log bytes.Buffer
		cfg := nodeConfig
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		for _, text := range []string{
			`[{"name":"../kernel/sysrq","value":"1"}]`,
			`[{"name":"ipv4/conf/../ip_forward","value":"1"}]`,
			`[{"name":"ipv4/conf/../../forwarding","value":"1"}]`,
			`[{"name":"ipv4/ip_forward","value":"1 1"}]`,
			`[{"name":"ipv4/ip_forward","value":"1"},{"name":"ipv4/tcp_syncookies","value":"0"}]`,
			`[{"name":"ipv4/ip_forward","val`,
			`what is this`,
			``,
		} {
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			assert.ErrorContains(t, Cleanup(nodeConfig), file, text)
			// It is kept for who wants to see it, in nobody's way.
			assert.NoFileExists(t, file)
			kept, err := os.ReadFile(file + damaged)
			require.NoError(t, err)
			assert.Equal(t, text, string(kept))
			assert.NoError(t, Cleanup(nodeConfig))

			// Nor does it keep the next process from starting, which says so.
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			log.Reset()
			i, err := Create(cfg)
			require.NoError(t, err, text)
			assert.Contains(t, log.String(), file)
			assert.Contains(t, log.String(), "level=WARN")
			require.NoError(t, i.Close())
			assert.NoFileExists(t, file)
		}
		// An interface that is gone, and an empty list.
		for _, text := range []string{`[{"name":"ipv4/conf/gone/forwarding","value":"1"}]`, `[]`} {
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			require.NoError(t, Cleanup(nodeConfig))
			assert.NoFileExists(t, file)
		}
		return nil
	}))
	assert.Equal(t, before, forwardingState(t, n.node))
}
