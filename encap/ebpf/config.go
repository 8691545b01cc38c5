package ebpf

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/mapcache"
)

// ErrUnsupported is wrapped by the errors of Probe and New where the kernel has no
// BPF for us.
var ErrUnsupported = errors.ErrUnsupported

// AttachMode says how programs are attached to interfaces.
type AttachMode uint8

const (
	AttachAuto   AttachMode = iota // TCX where the kernel has it, else clsact
	AttachTCX                      // only TCX: links that end with the process, unless they are pinned
	AttachClsact                   // only filters of a clsact qdisc
)

// Defaults of Config.
const (
	DefaultMaxEntries  = mapcache.DefaultMaxEntries
	DefaultMaxLocators = 1 << 16
	DefaultMaxSets     = 1 << 15

	DefaultLinger = 3 * time.Minute
	DefaultPinDir = "/sys/fs/bpf/xtrkit"
)

// LAN is an interface whose packets are encapsulated as they come in, without the
// overlay's device. What is not for an EID with a mapping goes the usual way
// through the host.
type LAN struct {
	IfIndex    int
	InstanceID uint32 // one of the overlays
}

// Config configures New.
type Config struct {
	// Forwarder is the slow path; mandatory. It must not run yet; it is run and
	// closed by the caller, the Dataplane first.
	Forwarder *encap.Forwarder
	// Encap is what the Forwarder was made with. With a Meter the kernel counts by
	// map-cache entry too: in 32 octets for each entry that there is room for and each CPU;
	// beyond 64 MiB several CPUs share counters. Without a SourceCheck that costs a lookup
	// for each packet that arrives. Each Overlay's Device must be an
	// interface of this host, or nil in one that only relays.
	Encap encap.Config
	// UDP is what the Forwarder's Underlay was made with. It should have NoGRO:
	// what the kernel has put together for the socket can only go there.
	UDP encap.UDPConfig

	// Cache is the map-cache, from which the kernel's copy is made again after
	// changes were lost, within Apply. Without it all packets take the slow path
	// from then on.
	Cache *mapcache.Cache

	// LANs are interfaces for router mode.
	LANs []LAN
	// MarkMask is the part of a packet's firewall mark that is the index of the
	// uplink to leave by; 0: marks do not matter.
	MarkMask uint32
	// PolicyIsMarks says that Encap.Policy does nothing that MarkMask does not do.
	// With any other Policy all packets that leave take the slow path.
	PolicyIsMarks bool

	// MaxEntries, MaxLocators and MaxSets (of two and more locators) bound the
	// tables in the kernel. What does not fit takes the slow path. A million host
	// EIDs take 55 MB in the kernel, and 160 MB in the process; a locator 38 octets
	// in the kernel, and 32 for each CPU, a set 136.
	MaxEntries, MaxLocators, MaxSets int

	Attach AttachMode

	// Persist lets packets go on in the kernel while no process runs: Close leaves
	// the programs where they are, and so does a process that is killed. The next
	// New takes their place without a gap, whatever its version, and has their
	// map-cache (Dataplane.Carried); with Persist off it ends them when it is ready.
	// Cleanup ends them too. The device has to outlive the process as well
	// (tun.Config.Linger). New fails where ProbePersist does.
	Persist bool
	// Linger is how long the programs go on when nobody calls Usage any more, who
	// could refresh mappings: then they leave all packets alone. Default
	// DefaultLinger, after which Map-Servers have forgotten us too. The time that the
	// machine sleeps does not count.
	Linger time.Duration
	// PinDir is where links and tables are pinned, a directory in a BPF file system,
	// which is mounted where it is missing. Default DefaultPinDir. Each network
	// namespace has a directory in it.
	PinDir string

	Logger *slog.Logger // nil is silent

	hostsSeed uint32 // of the hash of single EIDs
}

func (cfg *Config) complete() error {
	if cfg.Forwarder == nil {
		return errors.New("ebpf: no Forwarder")
	}
	if len(cfg.Encap.Overlays) == 0 {
		return errors.New("ebpf: no Overlays")
	}
	for _, v := range []struct {
		p      *int
		d, max int
	}{
		{&cfg.MaxEntries, DefaultMaxEntries, 1 << 26},
		{&cfg.MaxLocators, DefaultMaxLocators, 1 << 24},
		{&cfg.MaxSets, DefaultMaxSets, 1 << 24},
	} {
		if *v.p == 0 {
			*v.p = v.d
		}
		if *v.p < 2 || *v.p > v.max {
			return fmt.Errorf("ebpf: a table of %d is not possible", *v.p)
		}
	}
	cfg.hostsSeed = rand.Uint32()
	if cfg.Linger == 0 {
		cfg.Linger = DefaultLinger
	}
	if cfg.Linger < 0 {
		return fmt.Errorf("ebpf: to linger for %v is not possible", cfg.Linger)
	}
	if cfg.PinDir == "" {
		cfg.PinDir = DefaultPinDir
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
