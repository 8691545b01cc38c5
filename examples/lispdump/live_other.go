//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
)

func (p *printer) live(context.Context, string) error {
	return fmt.Errorf("listening on an interface: %w", errors.ErrUnsupported)
}
