package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/mapserverd"
	"github.com/xtrkit/xtrkit/examples/internal/node"
	"github.com/xtrkit/xtrkit/examples/internal/socktest"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// envProgram makes the test binary one of the programs.
const envProgram = "XTRKIT_LIG_PROGRAM"

func TestMain(m *testing.M) {
	programs := map[string]func(context.Context, []string) int{
		"lig":    func(ctx context.Context, args []string) int { return run(ctx, args, os.Stdout, os.Stderr) },
		"lispmn": func(ctx context.Context, args []string) int { return node.Main(ctx, args, os.Stdout, os.Stderr) },
		"lispms": func(ctx context.Context, args []string) int {
			return mapserverd.Main(ctx, args, os.Stdout, os.Stderr)
		},
	}
	if program := programs[os.Getenv(envProgram)]; program != nil {
		os.Exit(program(context.Background(), os.Args[1:]))
	}
	netlab.Main(m)
}

// field is two nodes, a Map-Server, and a host without LISP, around a router.
type field struct {
	t     *testing.T
	dir   string
	hosts map[string]*netlab.Host
}

const fieldConfig = `control-socket = "%[1]s/%[2]s.sock"
state-file = "%[1]s/%[2]s.state"
map-resolver = { 10.0.3.2, fd00:3::2 }
map-server { address = 10.0.3.2 key-type = 2 key = %[2]s }
database-mapping { eid-prefix = 192.0.2.%[3]d/32 ttl = 7 interface = eth0 }
database-mapping { eid-prefix = 2001:db8::%[3]d/128 interface = eth0 }
`

func newField(t *testing.T) *field {
	lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)
	f := &field{t: t, dir: socktest.Dir(t), hosts: map[string]*netlab.Host{}}
	core := lab.Router("core")
	for i, name := range []string{"a", "b", "ms", "c"} {
		h := lab.Host(name)
		f.hosts[name] = h
		lab.Link(h, core, netlab.LinkConfig{
			A:     netlab.End{Name: "eth0", Addrs: []string{fmt.Sprintf("10.0.%d.2/24", i+1), fmt.Sprintf("fd00:%d::2/64", i+1)}},
			B:     netlab.End{Name: "to-" + name, Addrs: []string{fmt.Sprintf("10.0.%d.1/24", i+1), fmt.Sprintf("fd00:%d::1/64", i+1)}},
			Delay: 2 * time.Millisecond,
		})
		h.DefaultVia(fmt.Sprintf("10.0.%d.1", i+1), fmt.Sprintf("fd00:%d::1", i+1))
	}
	sites := "operating-mode = MS\ncontrol-socket = '" + f.dir + "/ms.sock'\n"
	for i, name := range []string{"a", "b"} {
		f.write(name, fmt.Sprintf(fieldConfig, f.dir, name, i+1))
		for _, eid := range []string{"192.0.2.%d/32", "2001:db8::%d/128"} {
			sites += fmt.Sprintf("lisp-site { name = %s eid-prefix = "+eid+" key-type = 2 key = %s }\n", name, i+1, name)
		}
	}
	f.write("ms", sites)
	f.start("lispms", "ms")
	f.start("lispmn", "a")
	f.start("lispmn", "b")
	f.await("ms", "all registrations", func(st *statusd.Status) bool { return len(st.MapServer.Registrations) == 4 })
	return f
}

func (f *field) write(name, config string) {
	require.NoError(f.t, os.WriteFile(filepath.Join(f.dir, name+".conf"), []byte(config), 0o600))
}

// start starts a program, which the lab ends.
func (f *field) start(program, host string) {
	f.t.Helper()
	cmd := f.hosts[host].Self(context.WithoutCancel(f.t.Context()), "-f", filepath.Join(f.dir, host+".conf"))
	cmd.Env = append(os.Environ(), envProgram+"="+program)
	log, err := os.Create(filepath.Join(f.dir, host+".log"))
	require.NoError(f.t, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(f.t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		_ = log.Close()
		close(ended)
	}()
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if f.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			f.t.Logf("%s on %s:\n%s", program, host, b)
		}
	})
	f.await(host, "the program", func(*statusd.Status) bool { return true })
}

func (f *field) await(host, what string, done func(*statusd.Status) bool) {
	f.t.Helper()
	c := statusd.NewClient(filepath.Join(f.dir, host+".sock"))
	require.NoError(f.t, netlab.Eventually(f.t.Context(), what, func() bool {
		st, err := c.Status(f.t.Context())
		return err == nil && done(&st)
	}))
}

// lig runs the program on a host.
func (f *field) lig(host, args string) (out string, code int) {
	f.t.Helper()
	cmd := f.hosts[host].Self(f.t.Context(), append([]string{"-s", filepath.Join(f.dir, host+".sock"), "-f", filepath.Join(f.dir, host+".conf")}, strings.Fields(args)...)...)
	cmd.Env = append(os.Environ(), envProgram+"=lig")
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		require.NoError(f.t, err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// ask is lig with -json.
func (f *field) ask(host, args string, code int) (as []answer) {
	f.t.Helper()
	out, got := f.lig(host, "-json "+args)
	require.Equal(f.t, code, got, "%s: %s", args, out)
	require.NoError(f.t, json.Unmarshal([]byte(out), &as), out)
	return as
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestField has lig ask our own Map-Server about our own nodes.
func TestField(t *testing.T) {
	f := newField(t)
	locators := func(host int) []locator {
		return []locator{{addr(fmt.Sprintf("10.0.%d.2", host)), "up", 1, 100}, {addr(fmt.Sprintf("fd00:%d::2", host)), "up", 1, 100}}
	}
	for _, tc := range []struct {
		name, host, args string
		eid, from        []string // of each answer; from is a locator of the site
		site             int
	}{
		{"from a node", "a", "192.0.2.2", []string{"192.0.2.2/32"}, []string{"10.0.2.2"}, 2},
		{"from a host without LISP", "c", "-m 10.0.3.2 192.0.2.2", []string{"192.0.2.2/32"}, []string{"10.0.2.2"}, 2},
		{"by IPv6", "a", "-m fd00:3::2 192.0.2.2", []string{"192.0.2.2/32"}, []string{"fd00:2::2"}, 2},
		{"an IPv6 EID by IPv6", "c", "-m fd00:3::2 2001:db8::1", []string{"2001:db8::1/128"}, []string{"fd00:1::2"}, 1},
		{"to the locator that is said", "b", "-source 10.0.2.2 2001:db8::1", []string{"2001:db8::1/128"}, []string{"10.0.1.2"}, 1},
		// Our own EIDs, that is (6835i-6-1): as the mapping system has them.
		{"self", "b", "self", []string{"192.0.2.2/32", "2001:db8::2/128"}, []string{"10.0.2.2", "10.0.2.2"}, 2},
		{
			"self at every Map-Resolver", "a", "-all self",
			[]string{"192.0.2.1/32", "192.0.2.1/32", "2001:db8::1/128", "2001:db8::1/128"},
			[]string{"10.0.1.2", "fd00:1::2", "10.0.1.2", "fd00:1::2"},
			1,
		},
		{"three times", "c", "-m 10.0.3.2 -c 3 192.0.2.1", []string{"192.0.2.1/32", "192.0.2.1/32", "192.0.2.1/32"}, []string{"10.0.1.2", "10.0.1.2", "10.0.1.2"}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := f.ask(tc.host, tc.args, daemon.ExitOK)
			require.Len(t, got, len(tc.eid))
			for i, a := range got {
				assert.Equal(t, tc.eid[i], a.Prefix.String())
				assert.Equal(t, tc.from[i], a.From.String())
				assert.Equal(t, 1, a.Sent)
				assert.True(t, a.Authoritative)
				assert.Equal(t, locators(tc.site), a.Locators)
				assert.GreaterOrEqual(t, a.RTT, 2*2*time.Millisecond, "there and back by two links at least")
			}
		})
	}

	// A negative answer, and one that does not come.
	got := f.ask("c", "-m 10.0.3.2 198.18.0.1", daemon.ExitOK)
	assert.Equal(t, "natively-forward", strings.ToLower(got[0].Action))
	assert.Equal(t, addr("10.0.3.2"), got[0].From)
	got = f.ask("a", "-all -m 10.0.4.2,10.0.3.2 -r 1 192.0.2.2", daemon.ExitFailure)
	require.Len(t, got, 2)
	assert.Equal(t, "no Map-Reply", got[0].Error, "nobody listens there")
	assert.Equal(t, 2, got[0].Sent, "one retry")
	assert.Equal(t, "192.0.2.2/32", got[1].Prefix.String(), "the others are asked all the same")

	out, code := f.lig("a", "192.0.2.2")
	assert.Equal(t, daemon.ExitOK, code)
	assert.Regexp(t, `^192\.0\.2\.2 at 10\.0\.3\.2: answer from 10\.0\.2\.2 \(the site itself\) in [0-9.]+ ms, 1 Map-Request sent
EID-prefix 192\.0\.2\.2/32, ttl 7m
   Locator     State   Pri/Wgt
   10\.0\.2\.2    up      1/100
   fd00:2::2   up      1/100
$`, out)
}
