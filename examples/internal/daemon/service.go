package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Service tells the service manager that the program works, as systemd's units of Type=notify
// want to be told: once now, then at half of the interval of its watchdog, as long as the program
// tells its state, and at the end. Without a service manager it does nothing. stop waits for it.
func Service(ctx context.Context, p Program, log *slog.Logger) (stop func()) {
	tell(log, daemon.SdNotifyReady)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer tell(log, daemon.SdNotifyStopping)
		interval, err := daemon.SdWatchdogEnabled(false)
		if err != nil {
			log.Warn("the service manager's watchdog", "err", err)
		}
		if interval == 0 {
			<-ctx.Done()
			return
		}
		watch(ctx, interval, p, log)
	}()
	return func() {
		cancel()
		<-done
	}
}

// watch pets the watchdog. A program whose loop hangs does not tell its state, and is started anew.
func watch(ctx context.Context, interval time.Duration, p Program, log *slog.Logger) {
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		within, cancel := context.WithTimeout(ctx, interval/4)
		_, err := p.Status(within)
		cancel()
		if err == nil {
			tell(log, daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			log.Error("the program does not tell its state", "err", err)
		}
	}
}

// Reloading tells the service manager that the configuration is read again, until done is called.
func Reloading(log *slog.Logger) (done func()) {
	tell(log, reloading())
	return func() { tell(log, daemon.SdNotifyReady) }
}

func tell(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("the service manager can't be told", "state", state, "err", fmt.Errorf("NOTIFY_SOCKET: %w", err))
	}
}
