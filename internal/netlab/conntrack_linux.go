package netlab

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FlushNAT makes the host forget the flows that it translates, as a NAT does that
// is switched off and on: what comes back for them is lost, until what goes out
// makes new ones, with other ports if NATConfig.RandomPorts is set.
func (h *Host) FlushNAT() {
	if h.lab.tb != nil {
		h.lab.tb.Helper()
	}
	h.lab.build(h.name+": flush conntrack", func() error { return h.Do(flushConntrack) })
}

// flushConntrack does it in the current thread's namespace.
func flushConntrack() error {
	nlh, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err == nil {
		defer nlh.Close()
		err = nlh.ConntrackTableFlush(netlink.ConntrackTable)
	}
	if err != nil {
		return &MissingFeatureError{Feature: ConntrackFlush, Err: err, Hint: "is the kernel built with CONFIG_NF_CT_NETLINK?"}
	}
	return nil
}
