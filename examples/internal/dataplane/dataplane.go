// Package dataplane has what the data planes of a node and of an RTR have in common:
// where packets are forwarded, what that takes from the system, and what is told of it.
package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

// UseKernel decides where packets are forwarded, and says why not in the kernel.
func UseKernel(where conf.Dataplane, log *slog.Logger) (inKernel bool, why string, err error) {
	if where == conf.DataplaneUser {
		return false, "dataplane = user", nil
	}
	err = ebpf.Probe()
	switch {
	case err == nil:
		return true, "", nil
	case where == conf.DataplaneEBPF:
		return false, "", fmt.Errorf("%w (dataplane = auto forwards in user space then)", err)
	}
	log.Info("packets are forwarded in user space", "why", err)
	return false, err.Error(), nil
}

// EndKernel ends the programs of an earlier process that forwarded packets in the kernel,
// for one that does not: they would go on beside it with what was true then. The sockets
// must have been opened, so that no such process runs.
func EndKernel(log *slog.Logger) {
	n, err := ebpf.Cleanup()
	switch {
	case err != nil && !errors.Is(err, fs.ErrPermission):
		log.Warn("programs of an earlier process may forward packets in the kernel", "err", err)
	case n > 0:
		log.Info("ended programs of an earlier process in the kernel", "count", n)
	}
}

// Open takes the sockets of a data plane from the system and puts them into cfg. Until
// a Forwarder has them, which closes them, closing is for the caller.
func Open(cfg *encap.Config, sockets encap.UDPConfig) (closing func() error, err error) {
	var open []func() error
	closeAll := func() error {
		errs := make([]error, 0, len(open))
		for _, f := range open {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	underlay, err := encap.NewUDP(sockets)
	if err != nil {
		return nil, err
	}
	open = append(open, underlay.Close)
	native, err := encap.NewNative()
	if err != nil {
		return nil, err
	}
	open = append(open, native.Close)
	icmp, err := encap.NewICMP()
	if err != nil {
		return nil, err
	}
	for _, r := range icmp {
		open = append(open, r.Close)
	}
	cfg.Underlay, cfg.Native, cfg.ICMP = underlay, native, icmp
	return closeAll, nil
}
