//go:build unix

package statusd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lockWait is how long takeLock waits for a process that is ending: killed, it
// holds its lock until the kernel has taken down its device, tens of
// milliseconds on an idle machine.
const lockWait = time.Second

// takeLock locks the file for the life of the process and writes its id into
// it. The kernel releases the lock however the process ends; the file stays,
// since removing it would let two processes lock two files of that name.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w (%s)", err, elsewhere)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	for end := time.Now().Add(lockWait); errors.Is(err, syscall.EWOULDBLOCK) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		b, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		return nil, fmt.Errorf("process %s holds %s: %w; stop it, or give this one another control-socket",
			strings.TrimSpace(string(b)), path, ErrRunning)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}
