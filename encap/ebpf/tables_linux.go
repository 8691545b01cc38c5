package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/mapcache"
)

// room is how many numbers a table has beyond the bound of what is in it: for those
// that rest.
func room(max int) uint32 { return uint32(1 + max + max/8 + 4096) }

// load loads the programs with tables of the given sizes.
func load(cfg *Config) (*bpfObjects, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("ebpf: %w", err)
	}
	for name, n := range map[string]int{
		"entries": cfg.MaxEntries, "prefixes": cfg.MaxEntries,
		"locators": cfg.MaxLocators, "traffic": cfg.MaxLocators, "sources": cfg.MaxLocators,
		"sets": cfg.MaxSets,
	} {
		spec.Maps[name].MaxEntries = room(n)
	}
	spec.Maps["hosts"].MaxEntries = chains(cfg.MaxEntries)
	for name, v := range map[string]any{
		"flow_seed": cfg.Encap.FlowSeed, "mark_mask": cfg.MarkMask, "log2_table": mapcache.LogTable(),
		"check_source": uint32(flag8(cfg.Encap.SourceCheck != encap.SourceUnchecked)),
		"vxlan_gpe":    uint32(flag8(cfg.UDP.VXLANGPE)),
		"hosts_mask":   chains(cfg.MaxEntries) - 1,
		"hosts_seed":   cfg.hostsSeed,
	} {
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, fmt.Errorf("ebpf: %s: %w", name, err)
		}
	}
	if cfg.Encap.Meter != nil {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return nil, fmt.Errorf("ebpf: %w", err)
		}
		entries := room(cfg.MaxEntries)
		n := meterCPUs(entries, cpus)
		spec.Maps["entry_traffic"].MaxEntries = uint32(n) * entries
		for name, v := range map[string]uint32{"meter_cpus": uint32(n), "meter_entries": entries, "meter_shared": uint32(flag8(n < cpus))} {
			if err := spec.Variables[name].Set(v); err != nil {
				return nil, fmt.Errorf("ebpf: %s: %w", name, err)
			}
		}
	}
	objs := new(bpfObjects)
	if err := spec.LoadAndAssign(objs, nil); err != nil {
		return nil, fmt.Errorf("ebpf: load: %w", err)
	}
	return objs, nil
}

// kernelTables are the tables of a mirror in the kernel. writes counts them, and
// keeps what is written to memory in front of what a packet finds it by.
type kernelTables struct {
	o       *bpfObjects
	entries *ebpf.Memory
	hosts   hostIndex
	writes  atomic.Uint64
}

func newKernelTables(cfg *Config, o *bpfObjects) (*kernelTables, error) {
	entries, err := o.Entries.Memory()
	if err != nil {
		return nil, err
	}
	return &kernelTables{o: o, entries: entries, hosts: hostIndex{seed: cfg.hostsSeed, first: make([]uint32, chains(cfg.MaxEntries))}}, nil
}

// scopeOf is what EIDs of an instance and a family start with.
func scopeOf(iid uint32, family uint8) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, iid<<8|uint32(family)))
}

func (k eidKey) eid() bpfEid { return bpfEid{Scope: scopeOf(k.iid, k.family), Addr: words(k.ip())} }

func (k eidKey) prefix() bpfPrefix { return bpfPrefix{Len: 32 + uint32(k.bits), Eid: k.eid()} }

func (t *kernelTables) putSet(id uint32, s *bpfSet) error {
	t.writes.Add(1)
	return t.o.Sets.Put(id, s)
}

func (t *kernelTables) putLocator(id uint32, l *bpfLocator) error {
	t.writes.Add(1)
	return t.o.Locators.Put(id, l)
}

func addressOf(a netip.Addr) bpfAddress {
	return bpfAddress{V6: uint32(flag8(a.Is6())), Addr: words(a)}
}

func (t *kernelTables) putSource(a netip.Addr, id uint32) error {
	t.writes.Add(1)
	return t.o.Sources.Put(addressOf(a), id)
}

func (t *kernelTables) deleteSource(a netip.Addr) error {
	t.writes.Add(1)
	return t.o.Sources.Delete(addressOf(a))
}

// dataHeader is the header in front of packets of an instance: f is twice the format,
// and one more for IPv6.
func dataHeader(iid uint32, f int) [2]uint32 {
	h := encap.DataHeader(iid, mapcache.Format(f/2), f%2 == 1)
	return [2]uint32{binary.NativeEndian.Uint32(h[:]), binary.NativeEndian.Uint32(h[4:])}
}

// setOverlays writes what is fixed: devices, instances and EID-Prefixes.
func setOverlays(o *bpfObjects, cfg *Config, ifindex map[uint32]int) error {
	for _, v := range cfg.Encap.Overlays {
		d := newDevice(&v)
		var devices []int
		if i, ok := ifindex[v.InstanceID]; ok {
			devices = append(devices, i)
		}
		for _, l := range cfg.LANs {
			if l.InstanceID == v.InstanceID {
				devices = append(devices, l.IfIndex)
			}
		}
		for _, i := range devices {
			if err := o.Devices.Put(uint32(i), d); err != nil {
				return err
			}
		}
		for _, set := range []struct {
			prefixes []netip.Prefix
			to       *ebpf.Map
		}{{v.EIDs, o.OwnEids}, {v.ProxyETR, o.Proxied}} {
			for _, p := range set.prefixes {
				if err := set.to.Put(makeKey(mapcache.MakeKey(v.InstanceID, p)).prefix(), uint32(1)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sum adds up a counter over all CPUs.
func sum(cpus []bpfCount) (c encap.Counter) {
	for _, v := range cpus {
		c.Packets += v.Packets
		c.Octets += v.Octets
	}
	return c
}

// The numbers of counters in lisp.c.
const (
	slowBase    = 65 // SLOW_HEADER
	countEncap  = 96
	countDecap  = 97
	countECNOdd = 98
	numCounters = 99 // COUNTERS
)

// readCounters returns all counters, read at once: the programs' tables are not to
// change meanwhile, and nobody who changes them is to wait for long.
func (d *Dataplane) readCounters() (all [numCounters]encap.Counter) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return all
	}
	var cursor ebpf.MapBatchCursor
	var keys [numCounters]uint32
	values := make([]bpfCount, numCounters*cpus)
	n, err := d.objs.Counters.BatchLookup(&cursor, keys[:], values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		d.cfg.Logger.Warn("counters of the kernel's data plane", "err", err)
	}
	for i, k := range keys[:n] {
		all[k] = sum(values[i*cpus : (i+1)*cpus])
	}
	return all
}

// readTraffic returns what was counted for a locator so far.
func (d *Dataplane) readTraffic(id uint32) (out, in encap.Counter) {
	var cpus []bpfLocatorCount
	if err := d.objs.Traffic.Lookup(id, &cpus); err != nil {
		return encap.Counter{}, encap.Counter{}
	}
	return sumTraffic(cpus)
}

func sumTraffic(cpus []bpfLocatorCount) (out, in encap.Counter) {
	for _, v := range cpus {
		out.Packets += v.Out.Packets
		out.Octets += v.Out.Octets
		in.Packets += v.In.Packets
		in.Octets += v.In.Octets
	}
	return out, in
}

// trafficBatch is how many locators are read at a time.
const trafficBatch = 1024

// eachTraffic calls f for the counters of the locators with a number below n, and
// for 0, which is for unknown sources.
func (d *Dataplane) eachTraffic(n uint32, f func(id uint32, out, in encap.Counter)) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("ebpf: %w", err)
	}
	var cursor ebpf.MapBatchCursor
	keys := make([]uint32, trafficBatch)
	values := make([]bpfLocatorCount, trafficBatch*cpus)
	for {
		got, err := d.objs.Traffic.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("ebpf: traffic: %w", err)
		}
		for i, id := range keys[:got] {
			if id >= n {
				return nil
			}
			out, in := sumTraffic(values[i*cpus : (i+1)*cpus])
			f(id, out, in)
		}
		if last || got == 0 {
			return nil
		}
	}
}
