package statusd

import "os"

// longestTemp leaves room for a directory and a name of a socket, whose path has at
// most 107 octets.
const longestTemp = 50

// TempDir is the parent for temporary directories that sockets are to be in: the
// system's, or /tmp if that has so long a name that no socket in it could be bound.
func TempDir() string {
	if dir := os.TempDir(); len(dir) <= longestTemp {
		return dir
	}
	return "/tmp"
}
