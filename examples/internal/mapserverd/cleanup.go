package mapserverd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

// cleanup is "lispms cleanup": it ends the programs in the kernel of an RTR that was
// graceful, or was killed. It fails, and ends nothing, while an RTR or a node runs.
func cleanup(_ context.Context, args []string, stdout, stderr io.Writer) int {
	_, code, done := command.CheckArgs(args, stdout, stderr)
	if done {
		return code
	}
	if err := endKernel(); err != nil {
		return daemon.Failed(stderr, "lispms", fmt.Errorf("clean up: %w", err))
	}
	fmt.Fprintln(stdout, "nothing of an RTR is left")
	return daemon.ExitOK
}

func endKernel() (err error) {
	port, err := encap.NewUDP(encap.UDPConfig{}) // that nobody who runs would share
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, port.Close()) }()
	_, err = ebpf.Cleanup()
	return err
}
