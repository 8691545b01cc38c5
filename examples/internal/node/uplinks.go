package node

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/tun"
)

// marksDevices is what the names of the devices for firewall marks have behind
// that of the first one.
const marksDevices = "-[0-9]*"

// retryAfter is when what the system refused is tried again.
const retryAfter = time.Second

// openKernel begins to follow the host's interfaces, and returns what there is.
func (n *Node) openKernel(ctx context.Context) (multihome.Change, error) {
	device := n.cfg.Conf.Device.Name
	if device == "" {
		device = tun.DefaultName
	}
	var err error
	n.uplinks, err = multihome.New(multihome.Config{
		Exclude: []string{device, device + marksDevices}, Reject: n.isEID, SiteScope: n.cfg.Conf.SiteScope,
	})
	if err != nil {
		return multihome.Change{}, err
	}
	n.kernel, err = multihome.NewNetlink(multihome.NetlinkConfig{Protocol: tun.Protocol, Devices: []string{device, device + marksDevices}})
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
	was := locatorsNow(n.conf, n.seen)
	n.seen = c.Interfaces
	locals := n.locators(c.Interfaces)
	db := database(n.conf, c.Interfaces, n.versions)
	sameDatabase := reflect.DeepEqual(db, n.database)
	// Others send to what is lost until they are told. No way out is new, so that
	// nothing has to be done before.
	told := sameDatabase && onlyLoses(was, locals)
	if told {
		n.runner.SetLocals(now, locals)
	}
	if c.Lost {
		n.tried(now, "repair of what was removed", n.device.Repair())
	}
	n.tried(now, uplinkRoutes, n.routing.Set(c.Interfaces, addresses(locals)))
	n.tried(now, "policies", n.steer(c.Interfaces))
	if !sameDatabase { // an interface is new
		n.database = db
		// The error says that the Runner has ended.
		_ = n.runner.Do(context.Background(), func(now time.Time) {
			if err := n.engine.SetDatabase(now, db); err != nil {
				n.log.Error("database mappings stay as they were", "err", err)
			}
		})
	}
	if !told {
		n.runner.SetLocals(now, locals)
	}
	return nil
}

// uplinkRoutes is what a refusal of them is called.
const uplinkRoutes = "routes of the uplinks"

// tried takes note of a change that the system may have refused, to try it again.
func (n *Node) tried(now time.Time, what string, err error) {
	if n.refused.note(now, what, err, n.log); err != nil {
		n.uplinks.Again(now.Add(retryAfter))
	}
}

// onlyLoses reports whether nothing is left by which anything was not sent before.
func onlyLoses(before, now []mapcache.Local) bool {
	return !slices.ContainsFunc(now, func(l mapcache.Local) bool { return l.Up && !slices.Contains(before, l) })
}

// locatorsNow is locatorsOf, with how each is used.
func locatorsNow(cfg *conf.Node, ifs []multihome.Interface) []mapcache.Local {
	locals, _ := locatorsOf(cfg, ifs)
	return sendBy(cfg, locals, ifs)
}
