package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/socktest"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// oorXTR is a router of a site as files of OpenOverlayRouter describe one.
const oorXTR = `#################################################
#
# General configuration
#
debug                  = 1
map-request-retries    = 2
log-file               = /var/log/oor.log
ipv6-scope             = GLOBAL
operating-mode         = xTR
encapsulation          = LISP

rloc-probing {
    rloc-probe-interval             = 30
    rloc-probe-retries              = 2
    rloc-probe-retries-interval     = 5
}

map-resolver        = {
        10.0.3.2
}

nat_traversal_support  = off

map-server {
        address        = 10.0.3.2
        key-type       = 1
        key            = "of site a"
        proxy-reply    = off
}

database-mapping {
    eid-prefix          = 198.51.100.0/25
    iid                 = 0
    ttl                 = 10
    rloc-iface{
        interface       = wan0
        ip_version      = 4
        priority        = 1
        weight          = 100
    }
}
database-mapping {
    eid-prefix          = 2001:db8:a::/48
    iid                 = 0
    ttl                 = 10
    rloc-address {
        address         = 10.0.1.2
        priority        = 1
        weight          = 100
    }
}
`

// lispmobXTR is the same as LISPmob wrote it.
const lispmobXTR = `debug                  = 1
map-request-retries    = 2
router-mode            = on
rloc-probing {
    rloc-probe-interval             = 30
    rloc-probe-retries              = 2
    rloc-probe-retries-interval     = 5
}
map-resolver        = {
        10.0.3.2
}
map-server {
        address        = 10.0.3.2
        key-type       = 1      # Only 1 supported (HMAC-SHA-1-96)
        key            = "of site b"
        proxy-reply    = on
        verify         = off
}
database-mapping {
        eid-prefix      = 198.51.100.128/25
        interface       = wan0
        priority_v4     = 1
        weight_v4       = 100
        priority_v6     = -1
        weight_v6       = 0
}
database-mapping {
        eid-prefix      = 2001:db8:b::/48
        interface       = wan0
        priority_v4     = 1
        weight_v4       = 100
        priority_v6     = -1
        weight_v6       = 0
}
proxy-itrs = {
}
`

// TestRouters has two sites talk whose routers are started with files of
// OpenOverlayRouter and of LISPmob: hosts that know nothing of LISP, by IPv4 and IPv6,
// with UDP that is cut and TCP, and with hosts of another subnet of their own site.
func TestRouters(t *testing.T) {
	lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)
	dir := socktest.Dir(t)
	core, ms := lab.Router("core"), lab.Host("ms")
	wire := func(h *netlab.Host, n int) {
		lab.Link(h, core, netlab.LinkConfig{
			A: netlab.End{Name: "wan0", Addrs: []string{fmt.Sprintf("10.0.%d.2/24", n)}},
			B: netlab.End{Addrs: []string{fmt.Sprintf("10.0.%d.1/24", n)}}, NoOffload: true,
		})
		h.DefaultVia(fmt.Sprintf("10.0.%d.1", n))
	}
	hosts := map[string]*netlab.Host{"ms": ms}
	// Each site has two subnets of its EID-Prefixes, with a host each.
	site := func(name string, n, first int) {
		r := lab.Host(name)
		hosts[name] = r
		wire(r, n)
		for i := range 2 {
			h := lab.Host(fmt.Sprintf("%s%d", name, i))
			hosts[h.Name()] = h
			gw4, gw6 := fmt.Sprintf("198.51.100.%d", first+64*i+1), fmt.Sprintf("2001:db8:%s:%d::1", name, i)
			lab.Link(h, r, netlab.LinkConfig{
				A: netlab.At(fmt.Sprintf("198.51.100.%d/26", first+64*i+2), fmt.Sprintf("2001:db8:%s:%d::2/64", name, i)),
				B: netlab.At(gw4+"/26", gw6+"/64"),
			})
			h.DefaultVia(gw4, gw6)
		}
	}
	wire(ms, 3)
	site("a", 1, 0)
	site("b", 2, 128)

	socket := func(name string) string { return filepath.Join(dir, name+".sock") }
	logs := map[string]string{}
	start := func(name, config string, args ...string) {
		file := filepath.Join(dir, name+".conf")
		config += fmt.Sprintf("control-socket = %q\n", socket(name))
		if name != "ms" {
			config += fmt.Sprintf("state-file = %q\nlog-file = %q\n", filepath.Join(dir, name+".state"), filepath.Join(dir, name+".log"))
		}
		require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
		cmd := hosts[name].Self(context.WithoutCancel(t.Context()), append(args, "-f", file)...)
		out, err := os.Create(filepath.Join(dir, name+".out"))
		require.NoError(t, err)
		logs[name] = out.Name()
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), envChild+"=1"), out, out
		require.NoError(t, cmd.Start())
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(ended)
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Signal(os.Interrupt)
			<-ended
			_ = out.Close()
		})
	}
	sites := "operating-mode = MS\n"
	for _, s := range []struct{ prefix, key string }{{"198.51.100.0/25", "of site a"}, {"2001:db8:a::/48", "of site a"}, {"198.51.100.128/25", "of site b"}, {"2001:db8:b::/48", "of site b"}} {
		sites += fmt.Sprintf("lisp-site { eid-prefix = %s key-type = 1 key = %q }\n", s.prefix, s.key)
	}
	start("ms", sites, argMapServer)
	start("a", oorXTR)
	start("b", lispmobXTR)
	require.NoError(t, netlab.Eventually(t.Context(), "all registrations", func() bool {
		st, err := statusd.NewClient(socket("ms")).Status(t.Context())
		return err == nil && len(st.MapServer.Registrations) == 4
	}))
	for name, says := range map[string]string{"a": "log-file: replaces the value of line 7 (warning)", "b": "map-server.verify: "} {
		b, err := os.ReadFile(logs[name])
		require.NoError(t, err)
		assert.Contains(t, string(b), says)
	}

	addr := func(host string, v6 bool) netip.Addr {
		n := map[string]int{"a0": 2, "a1": 66, "b0": 130, "b1": 194}[host]
		if v6 {
			return netip.MustParseAddr(fmt.Sprintf("2001:db8:%c:%c::2", host[0], host[1]))
		}
		return netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", n))
	}
	for _, pair := range [][2]string{{"a0", "b0"}, {"b1", "a1"}, {"a0", "a1"}} {
		for _, v6 := range []bool{false, true} {
			from, to := hosts[pair[0]], hosts[pair[1]]
			dst := addr(pair[1], v6)
			network, local := "ip4:icmp", "0.0.0.0"
			if v6 {
				network, local = "ip6:ipv6-icmp", "::"
			}
			for _, size := range []int{56, 3000} {
				conn, err := from.ListenPacket(network, local)
				require.NoError(t, err)
				r, err := probe.Ping(t.Context(), conn, dst, probe.PingConfig{Count: 5, Interval: 20 * time.Millisecond, Size: size, Wait: 3 * time.Second})
				_ = conn.Close()
				require.NoError(t, err)
				// An IPv6 host has to be told how large its packets may be.
				assert.Equal(t, r.Sent, r.Received+len(r.Errors), "%v, %d octets: %+v", pair, size, r)
				assert.Greater(t, r.Received, r.Sent/2, "%v, %d octets: %+v", pair, size, r)
			}
			ln, err := to.Listen("tcp", net.JoinHostPort(dst.String(), demoPort))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			received := make(chan error, 1)
			go func() { received <- probe.Receive(ctx, ln) }()
			_, err = probe.Transfer(ctx, func(ctx context.Context) (net.Conn, error) { return from.Dial(ctx, "tcp", ln.Addr().String()) }, 1<<20)
			assert.NoError(t, err, "%v", pair)
			cancel()
			<-received
			_ = ln.Close()
		}
	}
	// What stays in a site does not go through the tunnel.
	st, err := statusd.NewClient(socket("a")).Status(t.Context())
	require.NoError(t, err)
	assert.NotZero(t, st.Node.Traffic.Encapsulated.Packets)
	for _, e := range st.Node.MapCache {
		assert.NotContains(t, []string{"198.51.100.0/25", "2001:db8:a::/48"}, e.Prefix.String())
	}
}
