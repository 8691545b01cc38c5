package ebpf

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// monotonic is the time by the kernel's clock that deadlines are of.
func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // can't fail
	return now.Nano()
}

// abandoned tells whether nobody has looked after the programs for so long that they leave
// packets alone. Their deadline is the first of the settings in every version.
func (p *pins) abandoned() bool {
	state, err := ebpf.LoadPinnedMap(p.file(pinState), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return false // they are being pinned
	}
	defer func() { _ = state.Close() }()
	b, err := state.LookupBytes(uint32(0))
	if err != nil || len(b) < 8 {
		return false
	}
	deadline := binary.NativeEndian.Uint64(b)
	return deadline != 0 && deadline < uint64(monotonic())
}

// removeAbandoned removes what is pinned for other network namespaces, and abandoned: most
// of these are gone, and nobody would come to do it. It takes the files alone, so that a
// process that was stopped for long keeps what it has. It returns how many links there were.
func (p *pins) removeAbandoned() (links int, err error) {
	above, own := filepath.Split(p.dir)
	dirs, err := os.ReadDir(above)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	errs := []error{err}
	for _, d := range dirs {
		o := &pins{filepath.Join(above, d.Name())}
		if _, err := strconv.ParseUint(d.Name(), 10, 64); err != nil || d.Name() == own || !o.abandoned() {
			continue
		}
		names, err := o.names()
		errs = append(errs, err)
		for _, n := range names {
			if n == pinState {
				continue
			}
			if strings.HasPrefix(n, linkPrefix) {
				links++
			}
			errs = append(errs, o.remove(n))
		}
		errs = append(errs, o.remove(pinState), o.remove("")) // the last, by which it is known
	}
	return links, errors.Join(errs...)
}
