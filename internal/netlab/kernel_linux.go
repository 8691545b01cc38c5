package netlab

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Linux tells whether the kernel is of this version at least, so that a test can say what
// an older one has to do instead.
func Linux(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
