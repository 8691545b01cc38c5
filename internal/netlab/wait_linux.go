package netlab

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// awaitLimit bounds waiting for what happens within milliseconds: a machine that is
// busy, or asleep, is not what tests fail for.
const awaitLimit = 3 * time.Minute

// Await waits until cond holds: it asks at once, and again after each change of
// the host's links, addresses, routes, rules or neighbours. It returns cond's
// error, or an error that names what was awaited when ctx ends.
func (h *Host) Await(ctx context.Context, what string, cond func(*netlink.Handle) (bool, error)) error {
	if h.ns < 0 {
		return h.dead()
	}
	cur := netns.None()
	// Subscribed before the first look, so that no change is missed.
	sub, err := nl.SubscribeAt(netns.NsHandle(h.ns), cur, unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return fmt.Errorf("netlab: %s: subscribe: %w", h.name, err)
	}
	defer sub.Close()
	// Receive has no way to be woken, so it comes back by itself now and then.
	if err := sub.SetReceiveTimeout(&unix.Timeval{Usec: 100_000}); err != nil {
		return fmt.Errorf("netlab: %s: subscribe: %w", h.name, err)
	}
	for {
		ok, err := cond(h.nl)
		if ok || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("netlab: %s: waiting for %s: %w", h.name, what, err)
		}
		// Whatever it is, a change, a lost one or the timeout: look again.
		_, _, _ = sub.Receive()
	}
}

// Eventually asks cond, a few milliseconds apart, until it holds or three minutes
// are over, and returns an error that names what was awaited then. It is for what
// no event tells of.
func Eventually(ctx context.Context, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, awaitLimit)
	defer cancel()
	for pause := time.Millisecond; !cond(); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("netlab: waiting for %s: %w", what, ctx.Err())
		case <-time.After(pause):
		}
	}
	return nil
}
