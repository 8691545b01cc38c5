package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

// TestMisuse starts nodes that cannot start: each says what is wrong and what to do,
// with the exit code for it, and leaves nothing behind.
func TestMisuse(t *testing.T) {
	d := testLab(t, demoOptions{})
	h := d.hosts["a"]
	dir := t.TempDir()
	good := d.nodeConfig(siteA, ipv4)
	for _, tc := range []struct {
		name   string
		config string
		args   string
		before func() func() // prepares the host, and returns what undoes that
		script string        // runs before, in a mount namespace of its own
		code   int
		says   []string
	}{
		{
			name: "another program has the data port", config: good, before: take(t, d, "udp4", ":4341"), code: daemon.ExitFailure,
			says: []string{"UDP port 4341 is taken; another LISP router or a VXLAN device on that port must go first (see: ss -ulpn 'sport = :4341')"},
		},
		{
			name: "another program has the control port", config: good, before: take(t, d, "udp6", ":4342"), code: daemon.ExitFailure,
			says: []string{"UDP port 4342 is in use, perhaps by another LISP program (see: ss -ulpn 'sport = :4342')"},
		},
		{
			name: "no TUN", config: good, script: "mount -t tmpfs none /dev/net", code: daemon.ExitFailure,
			says: []string{"/dev/net/tun: no such file or directory", "load the module tun, or pass the device to the container"},
		},
		{
			name: "nowhere to write the socket", config: good, script: "mkdir -p ro && mount -t tmpfs -o ro none ro", args: "ro/x.sock", code: daemon.ExitFailure,
			says: []string{"x.sock.lock: read-only file system (give another place with control-socket in the configuration)"},
		},
		{
			name: "a damaged state file", config: good, args: "state:xx", code: daemon.ExitFailure,
			says: []string{"(remove it to start as a new node)"},
		},
		{
			name: "the status page's port is taken", config: good, args: "-http 127.0.0.1:8080", before: takeTCP(t, d, "127.0.0.1:8080"), code: daemon.ExitFailure,
			says: []string{"status page: listen tcp 127.0.0.1:8080: bind: address already in use (give another place with -http)"},
		},
		{name: "profiles nowhere", config: good, args: "-pprof", code: daemon.ExitUsage, says: []string{"-pprof needs -http ADDRESS"}},
		{name: "a log in no form", config: good, args: "-log yaml", code: daemon.ExitUsage, says: []string{"-log: it is auto, text or json"}},
		{name: "no text", config: "\x7fELF\x00\x01", code: daemon.ExitUsage, says: []string{"x.conf is not text"}},
		{
			name: "typos", config: "map-resolvr = 10.0.3.2\nkey = x\n" + good, code: daemon.ExitUsage,
			says: []string{"x.conf:1: map-resolvr: unknown option; did you mean 'map-resolver'?", "x.conf:2: key: unknown option; it belongs into section map-server"},
		},
		{
			name: "a section without end", config: strings.TrimSuffix(good, "}\n"), code: daemon.ExitUsage,
			says: []string{"database-mapping: the section opened in line 17 is never closed with '}'"},
		},
		{
			name: "an EID twice", config: good + "database-mapping { eid-prefix = 192.0.2.1 interface = eth0 priority_v4 = 1 }\n", code: daemon.ExitUsage,
			says: []string{"x.conf:23: database-mapping: 192.0.2.1/32 has the same locator in line 11 already"},
		},
		{
			name: "a second EID of a family", config: good + "database-mapping { eid-prefix = 192.0.2.9 interface = eth0 }\n", code: daemon.ExitUsage,
			says: []string{"x.conf:23: database-mapping.eid-prefix: a mobile node has one EID per address family: 192.0.2.1/32 (line 11) or 192.0.2.9/32"},
		},
		{
			name: "a key of no type", config: strings.Replace(good, "key-type = 2", "key-type = 9", 1), code: daemon.ExitUsage,
			says: []string{"x.conf:8: map-server.key-type: '9' is not a number from 0 to 3"},
		},
		{
			name: "the Map-Server is an EID", config: strings.Replace(good, "eid-prefix = 192.0.2.1", "eid-prefix = 10.0.3.2", 1), code: daemon.ExitUsage,
			says: []string{"10.0.3.2/32 holds the Map-Server 10.0.3.2, which has to be outside of it"},
		},
		{
			name: "a table of others", config: good + "tun-table = 77\n", code: daemon.ExitFailure, before: func() func() {
				h.MustRun("ip", "route", "add", "blackhole", "198.18.0.0/15", "table", "77")
				return func() { h.MustRun("ip", "route", "flush", "table", "77") }
			}, says: []string{"table 77"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(dir, "x.conf")
			config, args := tc.config, []string{"-f", file}
			switch {
			case strings.HasSuffix(tc.args, ".sock"):
				config = strings.Replace(config, filepath.Join(d.dir, "a.sock"), filepath.Join(dir, tc.args), 1)
			case strings.HasPrefix(tc.args, "state:"):
				state := filepath.Join(d.dir, "a.state")
				require.NoError(t, os.WriteFile(state, []byte(tc.args[6:]), 0o600))
				defer os.Remove(state)
			default:
				args = append(args, strings.Fields(tc.args)...)
			}
			require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
			if tc.before != nil {
				defer tc.before()()
			}
			out, code := misused(t, d, dir, tc.script, args)
			assert.Equal(t, tc.code, code, out)
			for _, s := range tc.says {
				assert.Contains(t, out, s)
			}
			assert.LessOrEqual(t, strings.Count(out, "\n"), 3, "what is wrong is not to be looked for:\n%s", out)
			require.NoError(t, d.checkClean(siteA))
			assert.NoFileExists(t, filepath.Join(d.dir, "a.sock"))
		})
	}
}

// misused runs a node that ends by itself, in a mount namespace in which a script has
// run.
func misused(t *testing.T, d *demoLab, dir, script string, args []string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := d.hosts["a"].Self(ctx, args...)
	if script != "" {
		exe, err := os.Executable()
		require.NoError(t, err)
		cmd = d.hosts["a"].Command(ctx, "unshare", append([]string{"-m", "sh", "-c", "cd " + dir + " && " + script + ` && exec "$0" "$@"`, exe}, args...)...)
	}
	cmd.Env = append(os.Environ(), envChild+"=1")
	b, err := cmd.CombinedOutput()
	require.Error(t, err, string(b))
	require.NotNil(t, cmd.ProcessState, "%v", err)
	return string(b), cmd.ProcessState.ExitCode()
}

// take has another program have a UDP port.
func take(t *testing.T, d *demoLab, network, address string) func() func() {
	return func() func() {
		c, err := d.hosts["a"].ListenPacket(network, address)
		require.NoError(t, err)
		return func() { _ = c.Close() }
	}
}

// takeTCP has another program have a TCP port.
func takeTCP(t *testing.T, d *demoLab, address string) func() func() {
	return func() func() {
		var ln net.Listener
		ln, err := d.hosts["a"].Listen("tcp", address)
		require.NoError(t, err)
		return func() { _ = ln.Close() }
	}
}

// TestHalfBroken starts nodes that work as far as they can: what does not is in the
// log, with what may be wrong.
func TestHalfBroken(t *testing.T) {
	d := testLab(t, demoOptions{})
	do(t, d, startMapServer)
	good := d.nodeConfig(siteA, ipv4)
	full := filepath.Join(d.dir, "full")
	require.NoError(t, os.Mkdir(full, 0o700))
	require.NoError(t, unix.Mount("none", full, "tmpfs", 0, "size=4k"))
	defer func() { _ = unix.Unmount(full, unix.MNT_DETACH) }()
	require.NoError(t, os.WriteFile(filepath.Join(full, "x"), make([]byte, 4096), 0o600))
	for _, tc := range []struct {
		name, config string
		host         string // whose log
		says         []string
	}{
		{"a wrong key", strings.Replace(good, siteA.key, "not that", 1), siteMS.name, []string{
			`"map-register refused"`, `"reason":"authentication failed"`, `"perhaps":"the node signs with another key than the lisp-site has"`, `"peer":"10.0.1.2:4342"`,
		}},
		{"a wrong key, as the node sees it", strings.Replace(good, siteA.key, "not that", 1), "a", []string{
			`"no map-notify"`, `"map_server":"10.0.3.2:4342"`, `"perhaps":"it is not reachable, or does not know this eid with this key"`,
		}},
		{"an EID that nobody knows", strings.Replace(good, "192.0.2.1", "192.0.2.77", 1), siteMS.name, []string{
			`"reason":"EID-Prefix not configured"`, "no lisp-site has the EID-Prefix",
		}},
		{"no such interface", strings.ReplaceAll(good, "eth0", "eth7"), "a", []string{
			"no locator is up: nobody can reach this node until one is", "there is no interface eth7 (there are: eth0)",
		}},
		{"the locator is the EID", strings.Replace(good, "eid-prefix = 192.0.2.1", "eid-prefix = 10.0.1.2", 1), "a", []string{
			"no locator is up", "the address 10.0.1.2 of interface eth0 is one of our EIDs: an EID is no locator, it belongs to the device alone",
		}},
		{"the disk is full", strings.Replace(good, filepath.Join(d.dir, "a.state"), filepath.Join(full, "a.state"), 1), "a", []string{
			"after a restart, Map-Servers will take this for another node", "no space left on device",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := d.start(t.Context(), "a", tc.config)
			require.NoError(t, err)
			_, err = a.ready(t.Context())
			require.NoError(t, err)
			assert.Eventually(t, func() bool {
				log := d.children[tc.host].logTail(1000)
				for _, s := range tc.says {
					if !strings.Contains(log, s) {
						return false
					}
				}
				return true
			}, time.Minute, 10*time.Millisecond, "%q in the log of %s:\n%s", tc.says, tc.host, d.children[tc.host].logTail(1000))
			require.NoError(t, a.stop())
			require.NoError(t, d.checkClean(siteA))
			require.NoError(t, os.Remove(a.file(".log")))
		})
	}
}
