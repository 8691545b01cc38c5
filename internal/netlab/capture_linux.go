package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkTypeRaw is packets that begin with the IP header (LINKTYPE_RAW).
const linkTypeRaw layers.LinkType = 101

// Capture writes what passes a host's interfaces to a pcapng file. Stop ends it.
type Capture struct {
	host    *Host
	socket  *os.File
	stopped chan struct{}
	once    sync.Once
	err     error

	mu      sync.Mutex
	file    *os.File
	w       *pcapgo.NgWriter
	ids     map[int]int // pcapng interface by interface index; -1: not captured
	packets int
}

// Capture begins to capture on all interfaces that the host has and will get,
// into a pcapng file that Wireshark reads. TUN devices appear as raw IP, and what
// passes lo is there once. Lab.Close stops what was not stopped.
//
// A frame shows as the kernel has it there: on a link without NoOffload that
// means unfinished checksums and packets longer than the MTU.
func (h *Host) Capture(path string) (*Capture, error) {
	if h.ns < 0 {
		return nil, h.dead()
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("netlab: capture: %w", err)
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("netlab: capture: %w", err)
	}
	c := &Capture{host: h, file: file, stopped: make(chan struct{}), ids: map[int]int{}}
	// The writer demands one interface at the start; lo is always there.
	c.w, err = pcapgo.NewNgWriterInterface(file, ngInterface("lo", layers.LinkTypeEthernet), pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{OS: "linux", Application: "xtrkit netlab", Comment: "host " + h.name},
	})
	if err == nil {
		c.ids[1] = 0
		err = c.addPresent()
	}
	if err == nil {
		c.socket, err = packetSocket(h, 0, unix.SO_TIMESTAMPNS)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("netlab: capture on %s: %w", h.name, err)
	}
	go c.run()
	h.lab.atClose(c.Stop)
	return c, nil
}

func ngInterface(name string, t layers.LinkType) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: name, LinkType: t, OS: "linux", TimestampResolution: 9}
}

// addPresent lists the interfaces that are there, so that they appear in the file
// in the host's order even if nothing passes them.
func (c *Capture) addPresent() error {
	links, err := c.host.nl.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := c.add(l); err != nil {
			return err
		}
	}
	return nil
}

func (c *Capture) add(l netlink.Link) error {
	if _, known := c.ids[l.Attrs().Index]; known {
		return nil
	}
	t := layers.LinkTypeEthernet
	switch l.Attrs().EncapType {
	case "ether", "loopback":
	case "none":
		t = linkTypeRaw
	default:
		c.ids[l.Attrs().Index] = -1
		return nil
	}
	id, err := c.w.AddInterface(ngInterface(l.Attrs().Name, t))
	c.ids[l.Attrs().Index] = id
	return err
}

// run reads the socket until it is closed.
func (c *Capture) run() {
	defer close(c.stopped)
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 1<<17)
	oob := make([]byte, 256)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var recvErr error
		err := raw.Read(func(fd uintptr) bool {
			n, oobn, _, from, recvErr = unix.Recvmsg(int(fd), buf, oob, 0)
			return !errors.Is(recvErr, unix.EAGAIN)
		})
		if err != nil {
			return // closed
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if recvErr != nil || !ok {
			continue // an interface went down
		}
		if ll.Hatype == unix.ARPHRD_LOOPBACK && ll.Pkttype == unix.PACKET_OUTGOING {
			continue // comes again as received
		}
		c.write(ll.Ifindex, timestamp(oob[:oobn]), buf[:n])
	}
}

func timestamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
				return time.Unix(ts.Unix())
			}
		}
	}
	return time.Now()
}

func (c *Capture) write(ifindex int, at time.Time, packet []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	id, known := c.ids[ifindex]
	if !known {
		l, err := c.host.nl.LinkByIndex(ifindex)
		if err != nil {
			return // gone already
		}
		if c.err = c.add(l); c.err != nil {
			return
		}
		id = c.ids[ifindex]
	}
	if id < 0 {
		return
	}
	c.packets++
	c.err = c.w.WritePacket(gopacket.CaptureInfo{
		Timestamp: at, CaptureLength: len(packet), Length: len(packet), InterfaceIndex: id,
	}, packet)
}

// Packets returns how many packets have been written so far.
func (c *Capture) Packets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.packets
}

// Flush writes out what has been captured so far, so that the file can be read.
func (c *Capture) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	return c.w.Flush()
}

// Stop takes what has passed the interfaces until now, and completes and closes
// the file. It is idempotent, and returns the first error there was.
func (c *Capture) Stop() error {
	c.once.Do(func() {
		c.drain()
		_ = c.socket.Close()
		<-c.stopped
		c.mu.Lock()
		defer c.mu.Unlock()
		if err := c.w.Flush(); c.err == nil {
			c.err = err
		}
		if err := c.file.Close(); c.err == nil {
			c.err = err
		}
		if c.err != nil {
			c.err = fmt.Errorf("netlab: capture on %s: %w", c.host.name, c.err)
		}
	})
	return c.err
}

// drain waits until the socket's queue has been read, for at most a second: on a
// busy host it never empties.
func (c *Capture) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = Eventually(ctx, "the capture's queue to empty", func() bool {
		var queued int
		raw, err := c.socket.SyscallConn()
		if err != nil {
			return true
		}
		err = raw.Control(func(fd uintptr) { queued, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
		return err != nil || queued == 0
	})
}
