package ebpf

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// hasTCX tells whether the kernel has TCX (Linux 6.6).
func hasTCX() bool { return netlab.Linux(6, 6) }

// attachModes lists the ways to attach that the kernel has.
func attachModes() []AttachMode {
	if hasTCX() {
		return []AttachMode{AttachTCX, AttachClsact}
	}
	return []AttachMode{AttachClsact}
}

// attached counts our programs at a place: by TCX and as filters.
func attached(t *testing.T, h *netlab.Host, at place) (tcx, filters int) {
	t.Helper()
	require.NoError(t, h.Do(func() error {
		how := ebpf.AttachTCXIngress
		if at.egress {
			how = ebpf.AttachTCXEgress
		}
		if hasTCX() {
			r, err := link.QueryPrograms(link.QueryOptions{Target: at.ifindex, Attach: how})
			if err == nil {
				tcx = len(r.Programs)
			} else if !errors.Is(err, syscall.ENOENT) {
				return err
			}
		}
		ours, _, err := ourFilters(at)
		filters = len(ours)
		return err
	}))
	return tcx, filters
}

// Both ways to attach carry packets, and Close leaves nothing behind: no program,
// no filter, no qdisc. Interfaces that are no uplinks any more are let go.
func TestAttach(t *testing.T) {
	for _, mode := range append(attachModes(), AttachAuto) {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, func(_ int, c *nodeConfig) {
				c.ebpf = func(c *Config) { c.Attach = mode }
			})
			n := p.nodes[0]
			up := place{ifindex: p.link.A.Index}
			tcx, filters := attached(t, n.host, up)
			if mode == AttachClsact || !hasTCX() {
				assert.Equal(t, []int{0, 1}, []int{tcx, filters})
			} else {
				assert.Equal(t, []int{1, 0}, []int{tcx, filters})
			}
			f := families[0]
			exchange(t, n.host, p.nodes[1].host, f.a, f.b, 100)
			transfer(t, n.host, p.nodes[1].host, f.a, f.b, 1<<20)
			s := n.kernel.Stats()
			assert.NotZero(t, s.KernelEncapsulated.Packets)
			assert.Equal(t, s.Encapsulated, s.KernelEncapsulated)

			locals := n.fwd.LocalPaths()
			require.NoError(t, n.host.Do(func() error { return n.plane.SetLocals(nil) }))
			tcx, filters = attached(t, n.host, up)
			assert.Equal(t, []int{0, 0}, []int{tcx, filters})
			var again []mapcache.Local
			for _, l := range locals {
				again = append(again, l.Local)
			}
			require.NoError(t, n.host.Do(func() error { return n.plane.SetLocals(again) }))
			exchange(t, n.host, p.nodes[1].host, f.a, f.b, 100)

			require.NoError(t, n.host.Do(n.kernel.Close))
			require.NoError(t, n.kernel.Close(), "again")
			tcx, filters = attached(t, n.host, up)
			assert.Equal(t, []int{0, 0}, []int{tcx, filters})
			assert.NotContains(t, n.host.MustRun("tc", "qdisc"), "clsact")
			// User space alone goes on.
			exchange(t, n.host, p.nodes[1].host, f.a, f.b, 101)
			assert.Equal(t, n.fwd.Stats().Encapsulated.Packets, n.stats().Encapsulated.Packets)
		})
	}
}

// TCX and nothing else is refused where the kernel has none.
func TestAttachOnlyTCX(t *testing.T) {
	requireBPF(t)
	objs, err := load(&Config{MaxEntries: 2, MaxLocators: 2, MaxSets: 2})
	require.NoError(t, err)
	defer objs.Close()
	h := netlab.Test(t).Host("a")
	require.NoError(t, h.Do(func() error {
		a, err := attach(AttachTCX, place{ifindex: 1}, objs.DecapEther, nil)
		if !hasTCX() {
			assert.ErrorIs(t, err, ebpf.ErrNotSupported)
			assert.ErrorContains(t, err, "lo ingress: TCX: ")
			return nil
		}
		require.NoError(t, err)
		return a.detach()
	}))
	tcx, filters := attached(t, h, place{ifindex: 1})
	assert.Equal(t, []int{0, 0}, []int{tcx, filters})
}

// A process that is killed leaves nothing with TCX. With clsact its filters stay;
// the next start replaces them, of either kind, and Cleanup removes them.
func TestKilled(t *testing.T) {
	requireBPF(t)
	afterwards := []string{"cleanup", "clsact"}
	if hasTCX() {
		afterwards = append(afterwards, "tcx")
	}
	for _, mode := range attachModes() {
		for _, after := range afterwards {
			t.Run(fmt.Sprintf("%d then %s", mode, after), func(t *testing.T) {
				lab := netlab.Test(t, netlab.IPv6, netlab.TUN)
				h, peer := lab.Host("a"), lab.Host("b")
				l := lab.Link(h, peer, netlab.LinkConfig{A: netlab.At("198.51.100.1/24"), B: netlab.At("198.51.100.2/24")})
				kill(t, h, mode, l.A.Index)
				up := place{ifindex: l.A.Index}
				left := 0
				if mode == AttachClsact {
					left = 1
				}
				require.NoError(t, h.Do(func() error {
					return netlab.Eventually(t.Context(), "TCX links go with the process", func() bool {
						r, err := link.QueryPrograms(link.QueryOptions{Target: up.ifindex, Attach: ebpf.AttachTCXIngress})
						return err != nil || len(r.Programs) == 0
					})
				}))
				_, filters := attached(t, h, up)
				assert.Equal(t, left, filters)
				_, filters = attached(t, h, place{ifindex: 1})
				assert.Equal(t, left, filters, "the LAN's")

				if after == "cleanup" {
					n := 0
					require.NoError(t, h.Do(func() (err error) {
						n, err = Cleanup()
						return err
					}))
					assert.Equal(t, 2*left, n)
				} else {
					next := AttachTCX
					if after == "clsact" {
						next = AttachClsact
					}
					node := newNode(t, h, nodeConfig{
						backend: inKernel, eids: []string{"10.1.0.1/32"},
						locals: []mapcache.Local{{IfIndex: l.A.Index, Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
						ebpf:   func(c *Config) { c.Attach, c.LANs = next, []LAN{{IfIndex: 1}} },
					})
					tcx, n := attached(t, h, up)
					if next == AttachTCX {
						assert.Equal(t, []int{1, 0}, []int{tcx, n})
					} else {
						assert.Equal(t, []int{0, 1}, []int{tcx, n})
					}
					require.NoError(t, h.Do(node.kernel.Close))
				}
				_, filters = attached(t, h, up)
				assert.Zero(t, filters)
				assert.NotContains(t, h.MustRun("tc", "qdisc"), "clsact")
			})
		}
	}
}

// Filters of others stay, and so does their qdisc.
func TestOthersFiltersStay(t *testing.T) {
	requireBPF(t)
	lab := netlab.Test(t, netlab.TUN)
	h, peer := lab.Host("a"), lab.Host("b")
	l := lab.Link(h, peer, netlab.LinkConfig{A: netlab.At("198.51.100.1/24"), B: netlab.At("198.51.100.2/24")})
	objs, err := load(&Config{MaxEntries: 2, MaxLocators: 2, MaxSets: 2})
	require.NoError(t, err)
	defer objs.Close()
	h.MustRun("tc", "qdisc", "add", "dev", l.A.Name, "clsact")
	require.NoError(t, h.Netlink().FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: l.A.Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 7, Protocol: syscall.ETH_P_ALL},
		Fd:          objs.DecapRaw.FD(), Name: "other", DirectAction: true,
	}))
	kill(t, h, AttachClsact, l.A.Index)
	require.NoError(t, h.Do(func() error {
		_, err := Cleanup()
		return err
	}))
	filters, err := h.Netlink().FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: l.A.Index}}, netlink.HANDLE_MIN_INGRESS)
	require.NoError(t, err)
	require.Len(t, filters, 1)
	assert.Equal(t, "other", filters[0].(*netlink.BpfFilter).Name)
}

// kill starts a process that attaches, and kills it when it has.
func kill(t *testing.T, h *netlab.Host, mode AttachMode, ifindex int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	cmd := h.Self(ctx)
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("%s=%d %d", envVictim, mode, ifindex))
	r, w := io.Pipe()
	cmd.Stdout = w
	var problems bytes.Buffer
	cmd.Stderr = &problems
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err, "%s", &problems)
	require.Equal(t, "attached", strings.TrimSpace(line), "%s", &problems)
	go func() { _, _ = io.Copy(io.Discard, r) }()
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
}

// A list that changed while it was made is made again, but not for ever.
func TestListed(t *testing.T) {
	for _, c := range []struct{ interruptions, tries int }{{0, 1}, {3, 4}, {99, listTries}} {
		tries := 0
		all, err := listed(func() ([]int, error) {
			if tries++; tries <= c.interruptions {
				return nil, netlink.ErrDumpInterrupted
			}
			return []int{1}, nil
		})
		assert.Equal(t, c.tries, tries)
		if c.interruptions < listTries {
			assert.NoError(t, err)
			assert.Equal(t, []int{1}, all)
		} else {
			assert.ErrorIs(t, err, netlink.ErrDumpInterrupted)
		}
	}
}

// What a killed process left at an interface that is of no use any more is removed at the
// next start, too: it would go on with what the map-cache said last.
func TestKilledElsewhere(t *testing.T) {
	requireBPF(t)
	lab := netlab.Test(t, netlab.IPv6, netlab.TUN)
	h, peer := lab.Host("a"), lab.Host("b")
	l := lab.Link(h, peer, netlab.LinkConfig{A: netlab.At("198.51.100.1/24"), B: netlab.At("198.51.100.2/24")})
	kill(t, h, AttachClsact, l.A.Index)
	newNode(t, h, nodeConfig{
		backend: inKernel, eids: []string{"10.1.0.1/32"},
		locals: []mapcache.Local{{IfIndex: l.A.Index, Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
		ebpf:   func(c *Config) { c.Attach = AttachClsact },
	})
	_, filters := attached(t, h, place{ifindex: 1})
	assert.Zero(t, filters, "of a LAN that is none")
	_, filters = attached(t, h, place{ifindex: l.A.Index})
	assert.Equal(t, 1, filters)
}
