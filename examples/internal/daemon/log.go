package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

// Log is the log of a program: on standard error, or in a file. It is safe for
// concurrent use.
type Log struct {
	*slog.Logger
	level  slog.LevelVar
	stderr io.Writer

	mu   sync.Mutex
	file *os.File // nil: standard error
}

// Forms of a log.
const (
	LogAuto = "auto" // text on a terminal, JSON elsewhere, for programs that collect logs
	LogText = "text"
	LogJSON = "json"
)

// NewLog makes a Log of a debug level and a form, which stays. A path appends to that file.
func NewLog(stderr io.Writer, path, form string, debug int) (*Log, error) {
	l := &Log{stderr: stderr}
	options := &slog.HandlerOptions{Level: &l.level}
	if form == LogText || form == LogAuto && path == "" && terminal(stderr) {
		l.Logger = slog.New(slog.NewTextHandler(l, options))
	} else {
		l.Logger = slog.New(slog.NewJSONHandler(l, options))
	}
	return l, l.Set(path, debug)
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Set changes file and level. The file is opened anew, which lets others rotate
// it. On an error the log stays where it was.
func (l *Log) Set(path string, debug int) error {
	l.level.Set(conf.LogLevel(debug))
	var f *os.File
	if path != "" {
		var err error
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
			return fmt.Errorf("log-file: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file = f
	return nil
}

// Write is for the Logger. What the file does not take, as on a full disk, goes to
// standard error.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		if n, err := l.file.Write(b); err == nil {
			return n, nil
		}
	}
	return l.stderr.Write(b)
}
