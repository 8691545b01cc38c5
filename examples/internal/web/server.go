package web

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

//go:embed page
var page embed.FS

// healthTimeout is how long the program may take to tell its state and still
// be called well. Its loop answers within microseconds unless it hangs.
const healthTimeout = 2 * time.Second

// Config makes a Server.
type Config struct {
	// Listener is what Listen returned. The Server closes it.
	Listener net.Listener
	// Snapshot returns the present state. It is called from many goroutines.
	Snapshot func(ctx context.Context) (statusd.Status, error)
	// Events tells what happens. Nil: the page shows no events.
	Events interface {
		Follow(ctx context.Context, after uint64, each func(statusd.Event) error, flush func() error) error
	}
	// Pprof serves Go's profiles too.
	Pprof  bool
	Logger *slog.Logger // nil: silent
}

// Server serves the page. It is safe for concurrent use.
type Server struct {
	cfg  Config
	http *http.Server
	end  context.CancelFunc // of the event streams
	once sync.Once
}

// Listen takes a TCP address, host:port such as 127.0.0.1:8080. Who listens elsewhere than on
// a loopback address shows to everybody there whom this node talks to.
func Listen(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("status page: %w (give another place with -http)", err)
	}
	return ln, nil
}

// New makes a Server.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, end := context.WithCancel(context.Background())
	s := &Server{cfg: cfg, end: end}
	s.http = &http.Server{
		Handler:           s.protect(s.routes()),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Run serves until the context ends or Close is called.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.http.Serve(s.cfg.Listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("status page: %w", err)
	}
	return nil
}

// Close ends all connections. It may be called more than once.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.end()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.http.Shutdown(ctx)
		_ = s.http.Close()
		_ = s.cfg.Listener.Close() // Shutdown does not know it if Run was never called
	})
	return nil
}

func (s *Server) routes() *http.ServeMux {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collector{s.cfg.Snapshot},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // "page" is valid
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /healthz", s.health)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	if s.cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// protect keeps pages of other sites from reading this one: a name of theirs can be
// made to point here, but the browser still tells that name.
func (s *Server) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !literal(r.Host) {
			http.Error(w, "open this page by an IP address or as localhost", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

func literal(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.cfg.Snapshot(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(st) // the client has gone: nobody to tell
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	if _, err := s.cfg.Snapshot(ctx); err != nil {
		http.Error(w, "does not tell its state: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// events streams what happens. A browser that lost the connection says what it had last.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Events == nil {
		http.NotFound(w, r)
		return
	}
	after, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64) // none, or nonsense: from the start
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	_ = s.cfg.Events.Follow(r.Context(), after, func(e statusd.Event) error {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Seq, b)
		return err
	}, out.Flush) // ends when the client goes or we do
}
