//go:build !linux

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// demo says what is missing here.
func demo(_ context.Context, _ []string, _, stderr io.Writer) int {
	fmt.Fprintln(stderr, "lispmn demo:", netlab.Enter())
	return daemon.ExitFailure
}
