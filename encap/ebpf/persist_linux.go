package ebpf

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xtrkit/xtrkit/mapcache"
)

// heir is what there is of an earlier process when we come, and what is to take its
// place.
type heir struct {
	pins    *pins
	found   bool // programs are at work
	carried []mapcache.Mapping
	places  []placed // that no program of ours is at yet
	settled bool     // nothing of the earlier process is left
}

// placed is a program for a place.
type placed struct {
	at   place
	prog *ebpf.Program
}

// inherit looks for what an earlier process has left.
func (d *Dataplane) inherit() (h heir, err error) {
	h.pins, err = pinsIn(d.cfg.PinDir)
	if err == nil && d.cfg.Persist {
		err = h.pins.open()
	}
	var names []string
	if err == nil {
		names, err = h.pins.names()
	}
	if err != nil && !d.cfg.Persist {
		return h, nil // before Linux 5.14 nobody could pin, nor where we may not look
	}
	if err != nil {
		return h, fmt.Errorf("pins: %w", err)
	}
	h.found = len(names) > 0
	if !h.found {
		return h, nil
	}
	if h.carried, err = h.pins.carried(); err != nil {
		d.cfg.Logger.Warn("mappings are not carried over from an earlier process, and will be asked for again", "err", err)
	}
	if d.cfg.Persist && h.pins.abandoned() {
		// Until ours is pinned nobody else may take what is there for abandoned.
		if err := h.pins.remove(pinState); err != nil {
			return h, fmt.Errorf("pins: %w", err)
		}
	}
	d.cfg.Logger.Info("programs of an earlier process are taken over", "mappings", len(h.carried))
	return h, nil
}

// Carried returns the mappings by which programs of an earlier process forward
// packets (Config.Persist), to be put into the map-cache before the first SetLocals:
// then the new programs know them when they take over. How long these mappings are
// good for is not known: they have a TTL of a minute, within which those in use are
// asked for again. Negative ones are not among them.
func (d *Dataplane) Carried() []mapcache.Mapping { return d.heir.carried }

// pins is where attachments are pinned; nil if they are not.
func (d *Dataplane) pins() *pins {
	if !d.cfg.Persist {
		return nil
	}
	return d.heir.pins
}

// takeOver attaches to the devices and LANs that we are not at yet.
func (d *Dataplane) takeOver() error {
	for len(d.heir.places) > 0 {
		p := d.heir.places[0]
		a, err := attach(d.cfg.Attach, p.at, p.prog, d.pins())
		if err != nil && p.at.egress {
			return err // to be tried again
		}
		d.heir.places = d.heir.places[1:]
		switch {
		case err != nil:
			return err
		case p.at.egress:
			d.fixed = append(d.fixed, a)
		default:
			d.lans[p.at.ifindex] = a
		}
	}
	return nil
}

func (d *Dataplane) attachments() []*attachment {
	return slices.Concat(d.fixed, slices.Collect(maps.Values(d.lans)), slices.Collect(maps.Values(d.further)), slices.Collect(maps.Values(d.uplinks)))
}

// settle removes what is left of an earlier process, once our programs are in its
// place, and pins our tables.
func (d *Dataplane) settle() error {
	if d.heir.settled || len(d.heir.places) > 0 {
		return nil
	}
	places, files := make(map[place]bool), make(map[string]bool)
	for _, a := range d.attachments() {
		places[a.at] = a.tcx == nil
		if a.pinned {
			files[d.heir.pins.linkFile(a.at)] = true
		}
	}
	if _, err := removeFilters(func(at place) bool { return places[at] }); err != nil {
		return err
	}
	err := d.settlePins(func(name string) bool { return files[d.heir.pins.file(name)] })
	d.heir.settled = err == nil
	return err
}

// settlePins removes the pins of an earlier process but for the links to keep, and pins
// our tables if they are to persist.
func (d *Dataplane) settlePins(keep func(name string) bool) error {
	switch {
	case d.cfg.Persist:
		if err := d.heir.pins.removeLinks(keep); err != nil {
			return err
		}
		if err := d.heir.pins.pinTables(d.objs); err != nil {
			return err
		}
		if _, err := d.heir.pins.removeAbandoned(); err != nil {
			d.cfg.Logger.Warn("what nodes have left in other network namespaces stays", "err", err)
		}
	case d.heir.found:
		_, err := d.heir.pins.removeAll()
		return err
	}
	return nil
}

// renew puts off the deadline.
func (d *Dataplane) renew() error {
	if !d.cfg.Persist {
		return nil
	}
	return d.writeSettings()
}

// deadline is until when the programs go on without us, by the kernel's clock; 0: for
// ever, which is as long as we live.
func (d *Dataplane) deadline() uint64 {
	if !d.cfg.Persist {
		return 0
	}
	return uint64(monotonic() + d.cfg.Linger.Nanoseconds())
}
