package tun

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/gopacket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// markedConfig is a node for which marks count, their last octet.
var markedConfig = Config{EIDs: nodeConfig.EIDs, MarkMask: 0xff}

// markNode makes a device and those for marks 3 and 7, and returns what comes by
// each, that for other marks first.
func markNode(t *testing.T, h *netlab.Host, cfg Config) (*Interface, []<-chan gopacket.Packet) {
	t.Helper()
	i := create(t, h, cfg)
	require.NoError(t, i.SetLocals(locators))
	queues := []<-chan gopacket.Packet{readAll(i)}
	added, err := i.SetMarks([]uint32{3, 7}) // from a thread of another namespace
	require.NoError(t, err)
	require.Len(t, added, 3)
	for n, m := range added {
		assert.Equal(t, []uint32{0, 3, 7}[n], m.Mark)
		assert.Equal(t, fmt.Sprintf("lmn0-%d", n), m.Device.Name())
		assert.Equal(t, i.MTU(), m.Device.MTU())
		queues = append(queues, readAll(m.Device))
	}
	return i, queues
}

// sendMarked sends a datagram by a socket with a mark.
func sendMarked(t *testing.T, h *netlab.Host, from, to string, port int, mark int, payload string) {
	t.Helper()
	require.NoError(t, h.Do(func() error {
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) }); e != nil {
				return e
			}
			return err
		}}
		if from != "" {
			d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
		}
		c, err := d.DialContext(context.Background(), "udp", net.JoinHostPort(to, fmt.Sprint(port)))
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		_, err = c.Write([]byte(payload))
		return err
	}))
}

func TestMarksLeadToDevices(t *testing.T) {
	n := newNetwork(t)
	_, queues := markNode(t, n.node, markedConfig)
	far := listener(t, n.far)
	n.node.SetMark(1003, 3)
	n.node.SetMark(1007, 0xab07) // the upper bits are for others
	n.node.SetMark(1009, 9)
	n.node.SetMark(1010, 0xab00)
	for _, e := range [][3]string{{eid4, far4, rloc4}, {eid6, far6, rloc6}} {
		eid, to, rloc := e[0], e[1], e[2]
		for _, from := range []string{"", eid} {
			// The mark of the socket, with and without a chosen source; and one that
			// nftables sets when the packet has been routed already.
			for mark, queue := range map[int]int{0: 0, 3: 2, 7: 3, 0x503: 2, 9: 1, 0x500: 0} {
				sendMarked(t, n.node, from, to, 9, mark, "socket")
				assert.Equal(t, eid+" > "+to+" socket", next(t, queues[queue]), "mark %#x, from %q", mark, from)
			}
			for port, queue := range map[int]int{1003: 2, 1007: 3, 1009: 1, 1010: 0} {
				sendMarked(t, n.node, from, to, port, 0, "nftables")
				assert.Equal(t, eid+" > "+to+" nftables", next(t, queues[queue]), "port %d, from %q", port, from)
			}
		}
		// What a locator sends is none of it, whatever mark it has.
		for _, mark := range []int{0, 3, 9} {
			sendMarked(t, n.node, rloc, to, 7, mark, "outer")
			assert.Equal(t, rloc+" outer", far())
		}
	}
}

// What hosts behind an EID-Prefix send is led by its mark too, but stays out of
// the tunnel if it is for the EID-Prefix.
func TestMarksOfARouter(t *testing.T) {
	n := newNetwork(t)
	h1, h2 := n.lab.Host("h1"), n.lab.Host("h2")
	n.lab.Link(h1, n.node, netlab.LinkConfig{A: netlab.At("192.0.2.10/25", "2001:db8:e:1::10/64"), B: netlab.At("192.0.2.2/25", "2001:db8:e:1::1/64")})
	n.lab.Link(h2, n.node, netlab.LinkConfig{A: netlab.At("192.0.2.200/25", "2001:db8:e:2::10/64"), B: netlab.At("192.0.2.129/25", "2001:db8:e:2::1/64")})
	h1.DefaultVia("192.0.2.2", "2001:db8:e:1::1")
	h2.DefaultVia("192.0.2.129", "2001:db8:e:2::1")
	_, queues := markNode(t, n.node, Config{EIDs: prefixes("192.0.2.0/24", "2001:db8:e::/48"), Router: true, MarkMask: 0xff})
	n.node.SetMark(7, 7)
	require.NoError(t, send(t, h1, "", "", far4, "out"))
	came := func() (got string) {
		for got = next(t, queues[3]); strings.Contains(got, " > ff02::"); got = next(t, queues[3]) {
			// A router says which groups it is in.
		}
		return got
	}
	assert.Equal(t, "192.0.2.10 > "+far4+" out", came())
	require.NoError(t, send(t, h2, "", "", far6, "out"))
	assert.Equal(t, "2001:db8:e:2::10 > "+far6+" out", came())
	at2 := listener(t, h2)
	require.NoError(t, send(t, h1, "", "", "192.0.2.200", "neighbour"))
	assert.Equal(t, "192.0.2.10 neighbour", at2())
}

func TestMarksComeAndGo(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	i, queues := markNode(t, n.node, markedConfig)
	running := state(t, n.node)
	again, err := i.SetMarks([]uint32{7, 3})
	require.NoError(t, err)
	assert.Empty(t, again)
	assert.Equal(t, running, state(t, n.node))
	require.NoError(t, i.SetMTU(1300))
	for _, name := range []string{"lmn0", "lmn0-0", "lmn0-2"} {
		l, err := n.node.Netlink().LinkByName(name)
		require.NoError(t, err)
		assert.Equal(t, 1300, l.Attrs().MTU)
	}

	// A mark that is not needed any more: its device ends, and its packets are among
	// the others.
	_, err = i.SetMarks([]uint32{7})
	require.NoError(t, err)
	_, open := <-queues[2]
	assert.False(t, open)
	_, err = n.node.Netlink().LinkByName("lmn0-1")
	require.ErrorAs(t, err, &netlink.LinkNotFoundError{})
	sendMarked(t, n.node, "", far6, 9, 3, "was 3")
	assert.Equal(t, eid6+" > "+far6+" was 3", next(t, queues[1]))

	// A device that somebody removes is made anew, what else is removed is put back.
	l, err := n.node.Netlink().LinkByName("lmn0-2")
	require.NoError(t, err)
	require.NoError(t, n.node.Netlink().LinkDel(l))
	n.node.MustRun("ip", "rule", "del", "pref", "4342")
	n.node.MustRun("ip", "-6", "rule", "del", "pref", "4345")
	n.node.MustRun("ip", "route", "flush", "table", fmt.Sprint(DefaultMarkTable))
	n.node.MustRun("ip", "link", "set", "lmn0-0", "down")
	require.NoError(t, i.Repair())
	added, err := i.SetMarks([]uint32{3, 7})
	require.NoError(t, err)
	require.Len(t, added, 2)
	queues[2], queues[3] = readAll(added[0].Device), readAll(added[1].Device)
	now := state(t, n.node)
	assert.Len(t, now["rules"], len(running["rules"]))
	assert.Len(t, now["routes"], len(running["routes"]))
	for mark, queue := range map[int]int{3: 2, 7: 3, 9: 1} {
		for _, e := range [][2]string{{eid4, far4}, {eid6, far6}} {
			sendMarked(t, n.node, "", e[1], 9, mark, "again")
			assert.Equal(t, e[0]+" > "+e[1]+" again", next(t, queues[queue]), "mark %d", mark)
		}
	}

	_, err = i.SetMarks([]uint32{0x103})
	require.ErrorIs(t, err, ErrConfig)
	_, err = i.SetMarks([]uint32{0})
	require.ErrorIs(t, err, ErrConfig)
	require.NoError(t, i.Close())
	_, err = i.SetMarks(nil)
	require.ErrorIs(t, err, os.ErrClosed)
	assert.Equal(t, before, state(t, n.node))
	plain := create(t, n.node, nodeConfig)
	_, err = plain.SetMarks(nil)
	assert.ErrorIs(t, err, ErrConfig)
}

// A device that cannot be set up leaves nothing, in whichever step it fails: what it
// left would be taken for somebody else's when SetMarks tries again.
func TestMarksThatFail(t *testing.T) {
	n := newNetwork(t)
	i := create(t, n.node, markedConfig)
	before := state(t, n.node)
	n.node.MustRun("ip", "addr", "del", eid4, "dev", "lmn0")
	for range 2 {
		added, err := i.SetMarks([]uint32{3})
		require.Error(t, err, "no route can have that source")
		require.Empty(t, added)
	}
	require.NoError(t, i.Repair())
	now := state(t, n.node)
	assert.Equal(t, before["routes"], now["routes"])
	assert.Equal(t, before["rules"], now["rules"])
	added, err := i.SetMarks([]uint32{3})
	require.NoError(t, err)
	require.Len(t, added, 2)
	assert.Equal(t, "lmn0-0", added[0].Device.Name())
}

// What a process that was killed left for marks goes; what others have in those
// tables stays, and is passed over.
func TestMarksAfterKill(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	for range 2 {
		killed(t, n, "marks")
		left := state(t, n.node)
		require.NotEqual(t, before["rules"], left["rules"])
		require.NotEqual(t, before["routes"], left["routes"], "throw routes do not go with a device")
	}
	dev := create(t, n.node, nodeConfig) // for which marks do not count
	require.NoError(t, dev.Close())
	assert.Equal(t, before, state(t, n.node))

	n.node.MustRun("ip", "route", "add", "198.18.0.0/15", "via", "10.0.0.1", "table", fmt.Sprint(DefaultMarkTable+1))
	before = state(t, n.node)
	i := create(t, n.node, markedConfig)
	// Another node of the same host has tables of its own.
	other := create(t, n.node, Config{Name: "lmn1", EIDs: prefixes("198.51.100.1/32"), Table: 4400, RulePriority: 5000, MarkMask: 0xff})
	added, err := i.SetMarks([]uint32{3})
	require.NoError(t, err)
	assert.Equal(t, []string{"lmn0-0", "lmn0-2"}, []string{added[0].Device.Name(), added[1].Device.Name()})
	added, err = other.SetMarks([]uint32{3})
	require.NoError(t, err)
	assert.Equal(t, []string{"lmn1-3", "lmn1-4"}, []string{added[0].Device.Name(), added[1].Device.Name()})
	with := state(t, n.node)
	third := create(t, n.node, Config{Name: "lmn2", EIDs: prefixes("198.51.100.2/32"), Table: 4401, RulePriority: 6000})
	require.NoError(t, third.Close())
	assert.Equal(t, with, state(t, n.node), "what is alive is no leftover")
	require.NoError(t, other.Close())
	require.NoError(t, i.Close())
	assert.Equal(t, before, state(t, n.node))
}
