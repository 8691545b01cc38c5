//go:build !unix

package statusd

import (
	"errors"
	"fmt"
	"os"
)

func takeLock(path string) (*os.File, error) {
	return nil, fmt.Errorf("control socket: lock %s: %w", path, errors.ErrUnsupported)
}
