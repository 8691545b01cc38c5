package tun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// stateDir has a file for each device whose host we made a router, with the
// sysctls as they were, so that the next process can put them back if this one
// is killed. Like the sysctls it does not outlive a reboot.
const stateDir = "/run/xtrkit"

// savedSysctl is a line of such a file.
type savedSysctl struct {
	Name  string `json:"name"` // below procNet
	Value string `json:"value"`
}

// What such a file may make us write.
var (
	savedName  = regexp.MustCompile(`^(ipv4/ip_forward|ipv6/conf/all/forwarding|ipv[46]/conf/[^/]+/forwarding|ipv4/conf/all/accept_redirects|ipv6/conf/[^/]+/accept_ra)$`)
	savedValue = regexp.MustCompile(`^[0-9]$`)
)

// stateFile is the file of a device in the network namespace of the calling thread,
// which is named by its cookie: unlike its inode that is never used again.
func stateFile(device string) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return "", fmt.Errorf("socket option SO_NETNS_COOKIE: %w", err)
	}
	return filepath.Join(stateDir, fmt.Sprintf("forwarding-%d-%s.json", cookie, device)), nil
}

// saveForwarding writes down what Close would restore, and what an earlier process has
// written down that the device is from.
func (i *Interface) saveForwarding() error {
	path, err := stateFile(i.name)
	if err != nil {
		return err
	}
	var saved []savedSysctl
	for _, f := range i.forwards {
		for _, s := range f.olds() {
			saved = append(saved, savedSysctl{strings.TrimPrefix(s.file.Name(), procNet+"/"), s.old})
		}
	}
	for _, s := range i.earlierForwarding(path) {
		if !slices.ContainsFunc(saved, func(o savedSysctl) bool { return o.Name == s.Name }) {
			saved = append(saved, s)
		}
	}
	b, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	i.stateFile = path
	return nil
}

// earlierForwarding is what the file says of a device that was taken over.
func (i *Interface) earlierForwarding(path string) []savedSysctl {
	if !i.heir {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	saved, _ := parseSaved(b) // nothing of one that is damaged
	return saved
}

// forgetForwarding says that there is nothing to restore any more.
func (i *Interface) forgetForwarding() error {
	if i.stateFile == "" {
		return nil
	}
	return os.Remove(i.stateFile)
}

// restoreForwarding restores what a dead process has left for a device. It returns
// how many settings it wrote. Of a file that is damaged nothing is used; it is moved
// aside, so that it is in nobody's way.
func restoreForwarding(device string) (n int, err error) {
	path, err := stateFile(device)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, nil // before Linux 5.14: nobody could write one
	}
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		// Root's directory has nothing for who is root in a user namespace only.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			err = nil
		}
		return 0, err
	}
	saved, err := parseSaved(b)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("%s is damaged, and now %s: %w", path, path+damaged, err), os.Rename(path, path+damaged))
	}
	for _, s := range saved {
		err := os.WriteFile(filepath.Join(procNet, s.Name), []byte(s.Value+"\n"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the interface is gone
		}
		if err != nil {
			return n, fmt.Errorf("%s: %w", path, err)
		}
		n++
	}
	return n, os.Remove(path)
}

// damaged is what the name of a damaged file ends with.
const damaged = ".damaged"

// parseSaved decodes a file, and checks all of it.
func parseSaved(b []byte) (saved []savedSysctl, err error) {
	if err := json.Unmarshal(b, &saved); err != nil {
		return nil, err
	}
	for _, s := range saved {
		if !savedName.MatchString(s.Name) || !savedValue.MatchString(s.Value) || strings.Contains(s.Name, "..") {
			return nil, fmt.Errorf("%w: %q = %q", ErrConfig, s.Name, s.Value)
		}
	}
	return saved, nil
}
