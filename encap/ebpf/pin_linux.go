package ebpf

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// pins are the files in a BPF file system by which links and tables outlive the
// process. Each network namespace has a directory of its own, named by its cookie,
// which unlike its inode is never used again.
type pins struct{ dir string }

// The tables that are pinned. That with the settings is the last: it says that the
// others are there, and how they are laid out.
const (
	pinState   = "state"
	linkPrefix = "link-"
)

func (p *pins) tables(o *bpfObjects) map[string]*ebpf.Map {
	return map[string]*ebpf.Map{"entries": o.Entries, "prefixes": o.Prefixes, "sets": o.Sets, "locators": o.Locators}
}

// pinsIn names the pins of the network namespace of the calling thread.
func pinsIn(dir string) (*pins, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return nil, fmt.Errorf("socket option SO_NETNS_COOKIE: %w", err)
	}
	return &pins{filepath.Join(dir, fmt.Sprint(cookie))}, nil
}

// ProbePersist tells whether Config.Persist is possible with this PinDir ("" is
// DefaultPinDir), and why not. As New would, it mounts the BPF file system and makes the
// directories that are missing.
func ProbePersist(pinDir string) error {
	p, err := pinsIn(cmp.Or(pinDir, DefaultPinDir))
	if err == nil {
		err = p.open()
	}
	if err == nil {
		err = os.NewSyscallError("access "+p.dir, unix.Access(p.dir, unix.W_OK|unix.X_OK))
	}
	if err != nil {
		return fmt.Errorf("ebpf: nothing can persist: %w", err)
	}
	return nil
}

// open makes the directory, and mounts a BPF file system above it if there is none. Who
// pins does it each time: an abandoned directory may have been removed meanwhile.
func (p *pins) open() error {
	mount := filepath.Dir(filepath.Dir(p.dir))
	if err := os.MkdirAll(mount, 0o700); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil {
		return fmt.Errorf("%s: %w", mount, err)
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", mount, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return fmt.Errorf("mount a BPF file system at %s: %w", mount, err)
		}
	}
	return os.MkdirAll(p.dir, 0o700)
}

func (p *pins) file(name string) string { return filepath.Join(p.dir, name) }

func (p *pins) linkFile(at place) string {
	way := "ingress"
	if at.egress {
		way = "egress"
	}
	return p.file(fmt.Sprintf("%s%d-%s", linkPrefix, at.ifindex, way))
}

// names lists what is pinned.
func (p *pins) names() ([]string, error) {
	es, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, 0, len(es))
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names, err
}

// takeOver puts a program into the link that an earlier process pinned, without a
// gap. It returns nil if there is no such link, or its interface is gone.
func (p *pins) takeOver(at place, prog *ebpf.Program) link.Link {
	l, err := link.LoadPinnedLink(p.linkFile(at), nil)
	if err != nil {
		return nil
	}
	if l.Update(prog) == nil {
		return l
	}
	_ = l.Unpin()
	_ = l.Close()
	return nil
}

// pinTables pins the tables in place of those of an earlier process.
func (p *pins) pinTables(o *bpfObjects) error {
	if err := errors.Join(p.open(), p.remove(pinState)); err != nil {
		return err
	}
	for name, m := range p.tables(o) {
		if err := p.remove(name); err != nil {
			return err
		}
		if err := m.Pin(p.file(name)); err != nil {
			return err
		}
	}
	return o.State.Pin(p.file(pinState))
}

func (p *pins) remove(name string) error {
	if err := os.Remove(p.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeLink removes a link, now: by itself it goes a little after its last file.
func (p *pins) removeLink(name string) error {
	if l, err := link.LoadPinnedLink(p.file(name), nil); err == nil {
		_ = l.Detach() // it may be at an interface that is gone
		_ = l.Close()
	}
	return p.remove(name)
}

// removeLinks removes the links that keep does not want.
func (p *pins) removeLinks(keep func(name string) bool) error {
	names, err := p.names()
	errs := []error{err}
	for _, n := range names {
		if strings.HasPrefix(n, linkPrefix) && !keep(n) {
			errs = append(errs, p.removeLink(n))
		}
	}
	return errors.Join(errs...)
}

// removeAll removes everything. It returns how many links there were.
func (p *pins) removeAll() (links int, err error) {
	names, err := p.names()
	errs := []error{err}
	for _, n := range names {
		if strings.HasPrefix(n, linkPrefix) {
			links++
			errs = append(errs, p.removeLink(n))
			continue
		}
		errs = append(errs, p.remove(n))
	}
	errs = append(errs, p.remove(""))
	return links, errors.Join(errs...)
}
