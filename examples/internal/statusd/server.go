package statusd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// ErrRunning is wrapped by the error of Listen when another process serves the
// same socket.
var ErrRunning = errors.New("already running")

// Config makes a Server.
type Config struct {
	// Path is the unix socket.
	Path string
	// Snapshot returns the present state. It is called from many goroutines.
	Snapshot func(ctx context.Context) (Status, error)
	// Actions are what the program can be asked to do, by name.
	Actions map[string]Action
	// Capture writes packets to w, in the form of pcapng, until the context ends;
	// nil: it cannot. No interfaces stand for all that matter.
	Capture func(ctx context.Context, interfaces []string, w io.Writer) error
}

// Server serves the status of a program. It is safe for concurrent use.
type Server struct {
	cfg    Config
	lock   *os.File
	ln     net.Listener
	http   *http.Server
	events *log

	closing chan struct{} // ends the event streams
	once    sync.Once
}

// elsewhere is what to do where there can be no socket.
const elsewhere = "give another place with control-socket in the configuration"

// maxSocketPath is how long the path of a unix socket can be.
const maxSocketPath = 107

// Listen takes the socket. The error wraps ErrRunning if another process has
// it; a socket that a dead process left behind is replaced.
func Listen(cfg Config) (*Server, error) {
	if cfg.Path == "" || len(cfg.Path) > maxSocketPath {
		return nil, fmt.Errorf("control socket %q: the path must have 1 to %d octets", cfg.Path, maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w (%s)", err, elsewhere)
	}
	lock, err := takeLock(cfg.Path + ".lock")
	if err != nil {
		return nil, err
	}
	ln, err := listenUnix(cfg.Path)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("control socket: %w (%s)", err, elsewhere)
	}
	s := &Server{cfg: cfg, lock: lock, ln: ln, events: newLog(), closing: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /events", s.stream)
	mux.HandleFunc("GET /capture", s.capture)
	mux.HandleFunc("POST /do/{action}", s.do)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return s, nil
}

// listenUnix replaces what is at path, which nobody serves as we have the lock.
func listenUnix(path string) (net.Listener, error) {
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s is there and is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// Publish adds an event. Its sequence number is set here.
func (s *Server) Publish(e Event) { s.events.add(kept{Event: e}) }

// Tell is Publish of a typed event (see Describe), which is put into words only if
// somebody reads it. Nobody may change it any more.
func (s *Server) Tell(at time.Time, typed fmt.Stringer) {
	s.events.add(kept{Event: Event{Time: at}, typed: typed})
}

// Run serves until the context ends or Close is called.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// Close ends all connections, removes the socket and releases the lock. Streams of events get
// what was published before they end; a connection that does not end within a second is cut,
// which is no error. It may be called more than once.
func (s *Server) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err = s.http.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		_ = s.http.Close()
		_ = s.ln.Close() // Shutdown does not know it if Run was never called
		_ = os.Remove(s.cfg.Path)
		_ = s.lock.Close()
	})
	return err
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.cfg.Snapshot(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(st) // the client has gone: nobody to tell
}

// stream writes events as JSON lines.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(r.FormValue("after"), 10, 64)
	if err != nil && r.FormValue("after") != "" {
		http.Error(w, "after is not a sequence number", http.StatusBadRequest)
		return
	}
	follow := r.FormValue("follow") != "0"
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	write := func(e Event) error { return enc.Encode(e) }
	if !follow {
		es, _ := s.events.after(after)
		for _, e := range es {
			if write(e) != nil {
				return
			}
		}
		return
	}
	_ = s.Follow(r.Context(), after, write, out.Flush) // the client has gone, or we end
}

// Follow calls each with every event after the sequence number, first those
// that are kept, then new ones as they come, and flush after each batch of them, which may be
// empty. It returns nil when the server was closed and all events are told, the context's error,
// or the one of a callback.
func (s *Server) Follow(ctx context.Context, after uint64, each func(Event) error, flush func() error) error {
	for closing := false; ; {
		es, more := s.events.after(after)
		for _, e := range es {
			if err := each(e); err != nil {
				return err
			}
			after = e.Seq
		}
		if err := flush(); err != nil || closing {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closing:
			closing = true
		}
	}
}
