//go:build !linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Capture works on Linux only.
func (n *Node) Capture(context.Context, []string, io.Writer) error {
	return fmt.Errorf("capture: %w", errors.ErrUnsupported)
}
