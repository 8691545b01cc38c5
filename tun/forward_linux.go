package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sysctl is a setting that was changed. Its file stays open, and with it the
// network namespace that it belongs to.
type sysctl struct {
	file        *os.File
	old, wanted string // without the end of line
}

// forwarding is what was set to make the host forward packets of one family, in
// the order in which it was done.
type forwarding struct {
	v6      bool
	changed []sysctl
	// affected is what else the switch for all interfaces has an effect on, as it
	// was: the one of each, and whether ICMP redirects are taken over IPv4.
	affected []sysctl
}

const procNet = "/proc/sys/net"

// forward makes the host forward packets, unless it does, in the families that
// the plan has anything for. It needs doing once for each.
func (i *Interface) forward() error {
	if !i.cfg.Router {
		return nil
	}
	return inNamespace(i.namespace, func() error {
		for _, v6 := range i.plan.families {
			if slices.ContainsFunc(i.forwards, func(f forwarding) bool { return f.v6 == v6 }) {
				continue
			}
			if err := i.forwardFamily(v6); err != nil {
				return fmt.Errorf("forwarding: %w", err)
			}
		}
		return nil
	})
}

// forwardFamily is forward for a family.
func (i *Interface) forwardFamily(v6 bool) error {
	family, all := "ipv4", "ipv4/ip_forward"
	if v6 {
		family, all = "ipv6", "ipv6/conf/all/forwarding"
	}
	if old, err := os.ReadFile(filepath.Join(procNet, all)); err != nil || strings.TrimSpace(string(old)) != "0" {
		return err
	}
	f := forwarding{v6: v6}
	err := f.open(family, all)
	i.forwards = append(i.forwards, f)
	if err != nil {
		return err
	}
	if err := i.saveForwarding(); err != nil {
		i.cfg.Logger.Warn("nobody would know after a crash that forwarding has to be switched off again", "err", err)
	}
	if err := f.enable(); err != nil {
		return err
	}
	i.cfg.Logger.Info("this host forwards packets now", "sysctl", "net."+strings.ReplaceAll(all, "/", "."))
	return nil
}

// open reads what there is, and keeps open what is to change.
func (f *forwarding) open(family, all string) error {
	conf := filepath.Join(procNet, family, "conf")
	names, err := os.ReadDir(conf)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Name() == "all" {
			continue
		}
		s, err := openSysctl(filepath.Join(conf, n.Name(), "forwarding"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the interface is gone since
		}
		if err != nil {
			return err
		}
		f.affected = append(f.affected, s)
		if family != "ipv6" {
			continue
		}
		ra, err := openSysctl(filepath.Join(conf, n.Name(), "accept_ra"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if ra.old != "1" {
			_ = ra.file.Close()
			continue
		}
		ra.wanted = "2"
		f.changed = append(f.changed, ra)
	}
	if family == "ipv4" {
		s, err := openSysctl(filepath.Join(conf, "all", "accept_redirects"))
		if err != nil {
			return err
		}
		f.affected = append(f.affected, s)
	}
	s, err := openSysctl(filepath.Join(procNet, all))
	if err != nil {
		return err
	}
	s.wanted = "1"
	f.changed = append(f.changed, s)
	return nil
}

// enable switches forwarding on. A router does not take default routes from
// other routers' advertisements, and forgets those it has; but its uplinks
// remain those of a host, hence accept_ra, first.
func (f *forwarding) enable() error {
	for i := range f.changed {
		if err := f.changed[i].set(f.changed[i].wanted); err != nil {
			return err
		}
	}
	return nil
}

// olds returns what restore sets, in its order.
func (f *forwarding) olds() []sysctl {
	all := slices.Clone(f.changed)
	slices.Reverse(all)
	return append(all, f.affected...)
}

// restore undoes enable.
func (f *forwarding) restore() error {
	olds := f.olds()
	errs := make([]error, len(olds))
	for i := range olds {
		errs[i] = olds[i].restore()
	}
	return errors.Join(errs...)
}

func openSysctl(path string) (sysctl, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return sysctl{}, err
	}
	var b [64]byte
	n, err := file.ReadAt(b[:], 0)
	if n == 0 {
		_ = file.Close()
		return sysctl{}, fmt.Errorf("%s: %w", path, err)
	}
	return sysctl{file: file, old: strings.TrimSpace(string(b[:n]))}, nil
}

func (s *sysctl) set(value string) error {
	_, err := s.file.WriteAt([]byte(value+"\n"), 0)
	return err
}

// restore sets the old value, unless the interface is gone.
func (s *sysctl) restore() error {
	err := s.set(s.old)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.file.Close())
}
