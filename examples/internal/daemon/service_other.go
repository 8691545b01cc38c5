//go:build !linux

package daemon

import "github.com/coreos/go-systemd/v22/daemon"

func reloading() string { return daemon.SdNotifyReloading }

// DropCapabilities does nothing, as only Linux has them.
func DropCapabilities() error { return nil }
