package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// hostEvent is an event and the host where it happened.
type hostEvent struct {
	Host string `json:"host"`
	statusd.Event
}

// eventLog prints what happens as it happens, keeps it, and lets steps wait for
// it. It is safe for concurrent use.
type eventLog struct {
	start time.Time
	limit time.Duration // how long await waits

	mu     sync.Mutex
	out    io.Writer
	events []hostEvent
	more   chan struct{} // closed with the next event
}

func newEventLog(out io.Writer) *eventLog {
	return &eventLog{start: time.Now(), limit: 15 * time.Second, out: out, more: make(chan struct{})}
}

// add takes an event and prints it as one line.
func (l *eventLog) add(host string, e statusd.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, hostEvent{host, e})
	fmt.Fprintf(l.out, "%8.3fs  %-9s %s\n", e.Time.Sub(l.start).Seconds(), host, strings.ReplaceAll(e.Text, "\n", " "))
	close(l.more)
	l.more = make(chan struct{})
}

// step prints the heading of a step.
func (l *eventLog) step(number int, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, "\n%d. %s\n", number, name)
}

// result prints how a step went.
func (l *eventLog) result(r stepReport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range r.Seen {
		fmt.Fprintf(l.out, "   seen: %s\n", s)
	}
	if r.OK {
		fmt.Fprintf(l.out, "   ok (%.1f s)\n", r.Seconds)
		return
	}
	fmt.Fprintf(l.out, "   FAILED: %s\n", r.Error)
	for _, s := range r.LookAt {
		fmt.Fprintf(l.out, "   look at: %s\n", strings.ReplaceAll(s, "\n", "\n      "))
	}
}

// mark is a position in the log: waits for it see only later events.
func (l *eventLog) mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// await returns the first event of a host and kind behind the mark that
// satisfies ok, and waits for it if there is none yet.
func (l *eventLog) await(ctx context.Context, mark int, host, kind string, ok func(statusd.Event) bool) (statusd.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	for {
		l.mu.Lock()
		es, more := l.events[mark:], l.more
		l.mu.Unlock()
		for _, e := range es {
			if e.Host == host && e.Kind == kind && (ok == nil || ok(e.Event)) {
				return e.Event, nil
			}
		}
		mark += len(es)
		select {
		case <-more:
		case <-ctx.Done():
			return statusd.Event{}, fmt.Errorf("no event %q of %s: %w", kind, host, ctx.Err())
		}
	}
}

// all returns the events so far.
func (l *eventLog) all() []hostEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]hostEvent(nil), l.events...)
}
