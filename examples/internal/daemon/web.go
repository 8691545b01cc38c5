package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/examples/internal/web"
)

// Page is the status page of a program: none, taken, or served.
type Page struct {
	ln    net.Listener // nil: none is wanted
	pprof bool
}

// Page takes the address of the status page if the command line asks for one, before
// anything else is changed.
func (f Flags) Page() (*Page, error) {
	if f.HTTP == "" {
		if f.Pprof {
			return nil, usageError{errors.New("-pprof needs -http ADDRESS")}
		}
		return &Page{}, nil
	}
	ln, err := web.Listen(f.HTTP)
	if err != nil {
		return nil, err
	}
	return &Page{ln, f.Pprof}, nil
}

// Program is what a status page shows.
type Program interface {
	Status(ctx context.Context) (statusd.Status, error)
	Events() *statusd.Server
}

// Serve shows a program until the context ends. The program works without it too, so
// what goes wrong is only logged.
func (p *Page) Serve(ctx context.Context, program Program, stderr io.Writer, log *slog.Logger) {
	if p.ln == nil {
		return
	}
	s := web.New(web.Config{Listener: p.ln, Snapshot: program.Status, Events: program.Events(), Pprof: p.pprof, Logger: log})
	fmt.Fprintf(stderr, "its status page: http://%s%s\n", p.ln.Addr(), exposed(p.ln.Addr()))
	go func() {
		if err := s.Run(ctx); err != nil {
			log.Error("no status page any more", "err", err)
		}
	}()
}

// exposed warns of an address that others can reach too.
func exposed(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok && !t.IP.IsLoopback() {
		return " (anybody who can reach this address can read it: there is no password)"
	}
	return ""
}

// Close gives the address back. It may be called at any time.
func (p *Page) Close() {
	if p.ln != nil {
		_ = p.ln.Close()
	}
}
