// Package topview is "lispmn top": a view in the terminal of what a running
// node sends where, by remote locator and by EID-Prefix. It asks the node's status
// socket once a second and changes nothing.
package topview

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/term"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// interval is the time between two looks, over which rates are taken.
const interval = time.Second

// patience is how long the node may take to answer.
const patience = 5 * time.Second

// Main is the command "lispmn top". It returns the exit code.
func Main(ctx context.Context, args []string, socket string, stdout, stderr io.Writer, more ...tea.ProgramOption) int {
	fs := flag.NewFlagSet("lispmn top", flag.ContinueOnError)
	fs.StringVar(&socket, "socket", socket, "the control `SOCKET` of the running node")
	const usage = "Usage: lispmn top [-socket SOCKET]\n\nShows traffic by locator and EID-Prefix. Keys: s sorts otherwise, p pauses, q quits.\n\nOptions:\n"
	switch err := cmdline.Parse(fs, usage, args, stdout, stderr); {
	case errors.Is(err, flag.ErrHelp):
		return daemon.ExitOK
	case err != nil:
		return daemon.ExitUsage
	case fs.NArg() > 0:
		cmdline.Mistake(stderr, fs.Name(), fmt.Errorf("unexpected argument %q", fs.Arg(0)))
		return daemon.ExitUsage
	}
	client := statusd.NewClient(socket)
	if _, err := client.Status(ctx); err != nil {
		return daemon.Failed(stderr, "lispmn top", err)
	}
	if len(more) == 0 && !term.IsTerminal(int(os.Stdin.Fd())) {
		return daemon.Failed(stderr, "lispmn top", errors.New("this is no terminal (lispconf show stats and show map-cache tell as much)"))
	}
	opts := append([]tea.ProgramOption{tea.WithContext(ctx), tea.WithOutput(stdout)}, more...)
	if _, err := tea.NewProgram(model{ask: func() (statusd.Status, error) {
		within, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return client.Status(within)
	}}, opts...).Run(); err != nil && ctx.Err() == nil {
		return daemon.Failed(stderr, "lispmn top", err)
	}
	return daemon.ExitOK
}

// look is the answer to one question for the state.
type look struct {
	status statusd.Status
	err    error
}

// model is what the view is made of. Update returns a changed copy.
type model struct {
	ask func() (statusd.Status, error)

	now, before *statusd.Status // the last look and the one before; nil: none yet
	err         error           // of the last look
	sorting     sorting
	paused      bool
	width       int // of the terminal, in columns; 0: unknown
	height      int // in lines
}

// Init asks for the first time.
func (m model) Init() tea.Cmd { return m.look }

func (m model) look() tea.Msg {
	st, err := m.ask()
	return look{st, err}
}

// Update takes a key, a new size or a look.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "s":
			m.sorting = (m.sorting + 1) % numSortings
		case "p":
			m.paused = !m.paused
		}
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case look:
		m = m.take(msg)
		return m, tea.Tick(interval, func(time.Time) tea.Msg { return m.look() })
	}
	return m, nil
}

// take keeps a look. The old state stays in view while the node does not answer.
func (m model) take(l look) model {
	if m.err = l.err; l.err == nil && !m.paused {
		m.before, m.now = m.now, &l.status
		if m.before != nil && !m.before.Started.Equal(m.now.Started) {
			m.before = nil // it has started anew, and its counters too
		}
	}
	return m
}

// View draws it all.
func (m model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	v.WindowTitle = "lispmn top"
	return v
}
