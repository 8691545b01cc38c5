package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// The hosts of every contender are a and b. Traffic goes between the inner
// addresses, over a wire between the outer ones.
const (
	outerA, outerB = "198.51.100.1", "198.51.100.2"
	innerA, innerB = "192.0.2.1", "192.0.2.2"
)

// severalQueues ends the name of one of ours whose device has several queues, and
// its port several sockets.
const (
	severalQueues = "-mq"
	queues        = 2
)

func contenderNames() []string {
	return []string{"veth", kernelName, "wireguard", "lisp", "lisp-gpe", "lisp" + severalQueues, "lisp-gpe" + severalQueues, ebpfName, ebpfName + "-gpe"}
}

// contender is two hosts with a data plane.
type contender struct {
	name   string
	a, b   *netlab.Host
	source netip.Addr // of a, that it sends from
	target netip.Addr // of b, as a sends to it
	procs  []*process
}

// newContender sets up the hosts of a contender.
func newContender(ctx context.Context, lab *netlab.Lab, name string, o *options) (*contender, error) {
	c := &contender{name: name, a: lab.Host(name + "-a"), b: lab.Host(name + "-b"), source: netip.MustParseAddr(innerA), target: netip.MustParseAddr(innerB)}
	wire := lab.Link(c.a, c.b, netlab.LinkConfig{A: netlab.At(outerA + "/24"), B: netlab.At(outerB + "/24")})
	if err := lab.Err(); err != nil {
		return nil, err
	}
	if o.nic {
		if err := errors.Join(likeNIC(wire.A), likeNIC(wire.B)); err != nil {
			return nil, err
		}
	}
	if err := deliverMany(c.b, manyB); err != nil {
		return nil, err
	}
	switch name {
	case "veth":
		c.source, c.target = netip.MustParseAddr(outerA), netip.MustParseAddr(outerB)
		return c, routeMany(c.a, manyB, outerB)
	case kernelName:
		if err := kernelTunnel(c.a, innerA, innerB, manyB, outerB); err != nil {
			return nil, err
		}
		return c, kernelTunnel(c.b, innerB, innerA, manyA, outerA)
	}
	if inKernel(name) {
		if err := ebpf.Probe(); err != nil {
			return nil, err
		}
	}
	keys, err := newKeys()
	if err != nil {
		return nil, err
	}
	for i, h := range []*netlab.Host{c.a, c.b} {
		cfg := childConfig{Kind: name, EID: innerA, PeerEID: innerB, Many: manyA, PeerMany: manyB, Local: outerA, Remote: outerB, Private: keys[0].private, PeerPublic: keys[1].public}
		if i == 1 {
			cfg = childConfig{Kind: name, EID: innerB, PeerEID: innerA, Many: manyB, PeerMany: manyA, Local: outerB, Remote: outerA, Private: keys[1].private, PeerPublic: keys[0].public}
		}
		cfg.Stats = o.stats
		if o.cpuProfile != "" && name != "wireguard" {
			cfg.CPUProfile = o.cpuProfile + "." + h.Name()
		}
		p, err := startProcess(ctx, h, cfg)
		if err != nil {
			c.stop()
			return nil, err
		}
		c.procs = append(c.procs, p)
	}
	return c, nil
}

// stop ends the processes and lets them write what they have to.
func (c *contender) stop() {
	for _, p := range c.procs {
		p.stop()
	}
	c.procs = nil
}

// cpu returns the processor time that the generators and the data planes have
// taken.
func (c *contender) cpu() (time.Duration, error) {
	var self unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &self); err != nil {
		return 0, err
	}
	total := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	for _, p := range c.procs {
		d, err := p.cpu()
		if err != nil {
			return 0, err
		}
		total += d
	}
	return total, nil
}

// process is a data plane on a host.
type process struct {
	cmd   *netlab.Cmd
	stdin io.Closer
	once  sync.Once
}

// startProcess starts this program again as a data plane, and waits until that
// is ready.
func startProcess(ctx context.Context, h *netlab.Host, cfg childConfig) (*process, error) {
	b, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := h.Self(ctx)
	cmd.Env = append(os.Environ(), envChild+"="+string(b))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != ready {
		_ = stdin.Close()
		return nil, fmt.Errorf("the data plane on %s did not start", h)
	}
	return &process{cmd: cmd, stdin: stdin}, nil
}

func (p *process) stop() {
	p.once.Do(func() {
		_ = p.stdin.Close()
		_ = p.cmd.Wait()
	})
}

// cpu reads the processor time of all threads of the process.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	const tick = 10 * time.Millisecond // of every Linux that Go runs on
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("short /proc/%d/stat", p.cmd.Process.Pid)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, err
}

// keyPair is in hexadecimal, as wireguard-go wants it.
type keyPair struct{ private, public string }

func newKeys() (pairs [2]keyPair, err error) {
	for i := range pairs {
		private := make([]byte, curve25519.ScalarSize)
		if _, err := rand.Read(private); err != nil {
			return pairs, err
		}
		public, err := curve25519.X25519(private, curve25519.Basepoint)
		if err != nil {
			return pairs, err
		}
		pairs[i] = keyPair{hex.EncodeToString(private), hex.EncodeToString(public)}
	}
	return pairs, nil
}
