package rtrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// openKernel begins to follow the host's interfaces, and returns what there is.
func (r *RTR) openKernel(ctx context.Context) (multihome.Change, error) {
	var err error
	if r.uplinks, err = multihome.New(multihome.Config{}); err != nil {
		return multihome.Change{}, err
	}
	if r.kernel, err = multihome.NewNetlink(multihome.NetlinkConfig{}); err != nil {
		return multihome.Change{}, err
	}
	snap, err := r.kernel.Next(ctx)
	if err != nil {
		return multihome.Change{}, err
	}
	r.uplinks.Handle(time.Now(), snap)
	change, _ := r.uplinks.Next() // the first is told at once
	return change, nil
}

func (r *RTR) closeKernel() error {
	if r.kernel == nil {
		return nil
	}
	if err := r.kernel.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// locators are the addresses that nodes reach the RTR by: of the interfaces that
// the file names, or else of all.
func (r *RTR) locators(ifs []multihome.Interface) []mapcache.Local {
	var ls []mapcache.Local
	add := func(i multihome.Interface, v6 bool, priority, weight uint8) {
		addrs, use := i.Addrs(v6), i.Usable(v6)
		if len(addrs) == 0 || use == multihome.NoAddress {
			return
		}
		// Without a default route it may well reach who is on its link.
		ls = append(ls, mapcache.Local{
			IfIndex: i.Index, Addr: addrs[0], Priority: priority, Weight: weight, Up: use != multihome.LinkDown,
		})
	}
	named := r.cfg.Conf.Locators
	for _, i := range ifs {
		if len(named) == 0 {
			add(i, false, 1, 100)
			add(i, true, 1, 100)
			continue
		}
		for _, s := range named {
			if s.Interface == i.Name {
				add(i, s.Family == 6, s.Priority, s.Weight)
			}
		}
	}
	for _, s := range named {
		if !slices.ContainsFunc(ifs, func(i multihome.Interface) bool { return i.Name == s.Interface }) {
			r.log.Warn("there is no such interface", "rtr_iface", s.Interface, "where", fmt.Sprintf("%s:%d", r.cfg.File, s.Line))
		}
	}
	return ls
}
