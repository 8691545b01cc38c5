package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/tun"
)

// Cleanup is "lispmn cleanup". It returns the exit code.
func Cleanup(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, code, done := command.CheckArgs(args, stdout, stderr)
	if done {
		return code
	}
	cfg, err := load(f)(ctx)
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	if err := cleanUp(cfg); err != nil {
		return daemon.Failed(stderr, "lispmn", fmt.Errorf("clean up: %w", err))
	}
	fmt.Fprintln(stdout, "nothing of a node is left")
	return daemon.ExitOK
}

// cleanUp removes what a node that was killed left: programs in the kernel, the
// device with its rules and routes, the uplinks' own routes. It fails, and removes
// nothing, while a node runs.
func cleanUp(cfg *conf.Node) (err error) {
	lock, err := statusd.Listen(statusd.Config{Path: socketOf(cfg)})
	if err != nil {
		return permission(err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return sweep(cfg)
}

// sweep is cleanUp for who has the lock.
func sweep(cfg *conf.Node) error {
	// First the device: that tells of a node with another control-socket too.
	if err := tun.Cleanup(deviceConfig(cfg, slog.New(slog.DiscardHandler))); err != nil {
		return permission(err)
	}
	if _, err := ebpf.Cleanup(); err != nil {
		return permission(err)
	}
	routing, err := multihome.NewRouting(multihome.RoutingConfig{Protocol: tun.Protocol})
	if err != nil {
		return permission(err)
	}
	return routing.Close()
}
