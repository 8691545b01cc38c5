package node

import (
	"context"
	"errors"
	"os"
	"reflect"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/tun"
)

// openKernel begins to follow the host's interfaces, and returns what there is.
func (n *Node) openKernel(ctx context.Context) (multihome.Change, error) {
	device := n.cfg.Conf.Device.Name
	if device == "" {
		device = tun.DefaultName
	}
	var err error
	n.uplinks, err = multihome.New(multihome.Config{
		Exclude: []string{device}, Reject: isEID(n.cfg.Conf), SiteScope: n.cfg.Conf.SiteScope,
	})
	if err != nil {
		return multihome.Change{}, err
	}
	n.kernel, err = multihome.NewNetlink(multihome.NetlinkConfig{Protocol: tun.Protocol, Devices: []string{device}})
	if err != nil {
		return multihome.Change{}, err
	}
	snap, err := n.kernel.Next(ctx)
	if err != nil {
		return multihome.Change{}, err
	}
	n.uplinks.Handle(time.Now(), snap)
	change, _ := n.uplinks.Next() // the first is told at once
	return change, nil
}

func (n *Node) closeKernel() error {
	if n.kernel == nil {
		return nil
	}
	if err := n.kernel.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// follow makes the node use the interfaces as they are now.
func (n *Node) follow(now time.Time, c multihome.Change) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = c.Interfaces
	if c.Lost {
		if err := n.device.Repair(); err != nil {
			n.log.Error("routes or rules that were removed are not all back", "err", err)
		}
	}
	locals := n.locators(c.Interfaces)
	if err := n.routing.Set(c.Interfaces, addresses(locals)); err != nil {
		n.log.Error("not all routes of the uplinks are there", "err", err)
	}
	if db := database(n.conf, c.Interfaces, n.versions); !reflect.DeepEqual(db, n.database) { // an interface is new
		n.database = db
		// The error says that the Runner has ended.
		_ = n.runner.Do(context.Background(), func(now time.Time) {
			if err := n.engine.SetDatabase(now, db); err != nil {
				n.log.Error("database mappings stay as they were", "err", err)
			}
		})
	}
	n.runner.SetLocals(now, locals)
	return nil
}

// locators is locatorsOf, with a word about what cannot be used.
func (n *Node) locators(ifs []multihome.Interface) []mapcache.Local {
	locals, missing := locatorsOf(n.conf, ifs)
	locals = sendBy(n.conf, locals, ifs)
	for _, why := range missing {
		n.log.Info("a locator is not up", "reason", why)
	}
	for _, l := range locals {
		if l.Up {
			return locals
		}
	}
	n.log.Warn("no locator is up: nobody can reach this node until one is", "reasons", missing)
	return locals
}
