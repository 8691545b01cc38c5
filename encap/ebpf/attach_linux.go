package ebpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What our clsact filters are known by. The number is LISP's port.
const (
	filterPriority = 4341
	filterHandle   = 4341
	filterName     = "xtrkit"
)

// attachment is a program at an interface. It stays if the interface goes: then
// there is nothing to detach from.
type attachment struct {
	tcx    link.Link // nil: a clsact filter
	at     place
	pinned bool
}

type place struct {
	ifindex int
	egress  bool
}

func (p place) String() string {
	way := "ingress"
	if p.egress {
		way = "egress"
	}
	name := fmt.Sprint(p.ifindex)
	if ifi, err := net.InterfaceByIndex(p.ifindex); err == nil {
		name = ifi.Name
	}
	return name + " " + way
}

func (p place) parent() uint32 {
	if p.egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// attach puts a program at an interface, behind those that are there, or in the
// place of an earlier process's. The attachment outlives the process if p is not nil.
func attach(mode AttachMode, at place, prog *ebpf.Program, p *pins) (*attachment, error) {
	if mode != AttachClsact {
		a, err := attachLink(at, prog, p)
		if err == nil {
			// Filters of a run that was killed come second, and see packets that we
			// leave alone.
			return a, detachFilter(at)
		}
		if mode == AttachTCX || !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("%v: TCX: %w", at, err)
		}
	}
	if err := attachFilter(at, prog); err != nil {
		return nil, fmt.Errorf("%v: clsact: %w", at, err)
	}
	return &attachment{at: at}, nil
}

// attachLink attaches by TCX.
func attachLink(at place, prog *ebpf.Program, p *pins) (*attachment, error) {
	if p != nil {
		if l := p.takeOver(at, prog); l != nil {
			return &attachment{tcx: l, at: at, pinned: true}, nil
		}
	}
	how := ebpf.AttachTCXIngress
	if at.egress {
		how = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: at.ifindex, Program: prog, Attach: how})
	if err != nil {
		return nil, err
	}
	if p != nil {
		if err := errors.Join(p.open(), l.Pin(p.linkFile(at))); err != nil {
			return nil, errors.Join(fmt.Errorf("pin: %w", err), l.Close())
		}
	}
	return &attachment{tcx: l, at: at, pinned: p != nil}, nil
}

func (a *attachment) detach() error {
	if a.tcx == nil {
		return detachFilter(a.at)
	}
	var err error
	if a.pinned {
		_ = a.tcx.Detach() // now; it may be at an interface that is gone
		if err = a.tcx.Unpin(); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, a.tcx.Close())
}

// leave lets the program go on without us.
func (a *attachment) leave() error {
	if a.tcx == nil {
		return nil
	}
	return a.tcx.Close()
}

// attachFilter replaces our filter at a place, without a gap if one is there.
func attachFilter(at place, prog *ebpf.Program) error {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: at.ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("qdisc: %w", err)
	}
	return netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: at.ifindex, Parent: at.parent(), Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: filterName, DirectAction: true,
	})
}

// listTries bounds how often a list is asked for that changes meanwhile.
const listTries = 10

// listed returns a list of the kernel's, as it was at one time.
func listed[T any](list func() ([]T, error)) (all []T, err error) {
	for range listTries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// ourFilters lists the filters of ours at a place, and whether there are others.
func ourFilters(at place) (ours []netlink.Filter, others bool, err error) {
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: at.ifindex}}
	filters, err := listed(func() ([]netlink.Filter, error) { return netlink.FilterList(l, at.parent()) })
	if gone(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("%v: filters: %w", at, err)
	}
	for _, f := range filters {
		b, ok := f.(*netlink.BpfFilter)
		if ok && b.Priority == filterPriority && strings.HasPrefix(b.Name, filterName) {
			ours = append(ours, f)
		} else {
			others = true
		}
	}
	return ours, others, nil
}

// gone reports whether there is no such interface, qdisc or filter.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}

// detachFilter removes our filter from a place, and the qdisc if nobody else has a
// filter there.
func detachFilter(at place) error {
	ours, others, err := ourFilters(at)
	if err != nil || len(ours) == 0 {
		return err
	}
	for _, f := range ours {
		if err := netlink.FilterDel(f); err != nil && !gone(err) {
			return fmt.Errorf("%v: remove filter: %w", at, err)
		}
	}
	back, more, err := ourFilters(place{at.ifindex, !at.egress})
	if err != nil || others || more || len(back) > 0 {
		return err
	}
	err = netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: at.ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if err != nil && !gone(err) {
		return fmt.Errorf("%v: remove qdisc: %w", at, err)
	}
	return nil
}

// Cleanup removes what a Dataplane left that was killed, or that was to persist:
// clsact filters at all interfaces of the network namespace, and what is pinned for it
// in DefaultPinDir and these directories, or for another one and abandoned. TCX links that are not pinned leave
// nothing. It returns how many filters and links there were.
func Cleanup(pinDirs ...string) (int, error) {
	n, err := removeFilters(func(place) bool { return false })
	errs := []error{err}
	for _, dir := range append([]string{DefaultPinDir}, pinDirs...) {
		p, err := pinsIn(dir)
		if errors.Is(err, unix.ENOPROTOOPT) {
			break // before Linux 5.14: nobody could pin
		}
		if err == nil {
			var links int
			links, err = p.removeAll()
			n += links
			more, errMore := p.removeAbandoned()
			n, err = n+more, errors.Join(err, errMore)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return n, fmt.Errorf("ebpf: cleanup: %w", err)
	}
	return n, nil
}

// removeFilters removes our filters from all places but those to keep. It returns how
// many there were.
func removeFilters(keep func(place) bool) (int, error) {
	links, err := listed(netlink.LinkList)
	if err != nil {
		return 0, fmt.Errorf("interfaces: %w", err)
	}
	n := 0
	var errs []error
	for _, l := range links {
		for _, egress := range []bool{false, true} {
			at := place{l.Attrs().Index, egress}
			if keep(at) {
				continue
			}
			ours, _, err := ourFilters(at)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			n += len(ours)
			errs = append(errs, detachFilter(at))
		}
	}
	return n, errors.Join(errs...)
}

// isEthernet tells whether packets of an interface have an Ethernet header.
func isEthernet(ifindex int) (bool, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return false, fmt.Errorf("interface %d: %w", ifindex, err)
	}
	kind := l.Attrs().EncapType
	return kind == "ether" || kind == "loopback", nil
}

// interfaceWith returns the index of the interface that has an address.
func interfaceWith(a netip.Addr) (int, error) {
	addrs, err := listed(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return 0, err
	}
	for _, x := range addrs {
		if ip, ok := netip.AddrFromSlice(x.IP); ok && ip.Unmap() == a {
			return x.LinkIndex, nil
		}
	}
	return 0, fmt.Errorf("no interface has the address %v", a)
}
