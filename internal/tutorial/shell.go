package tutorial

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Shell is a running bash. Use it from one goroutine.
type Shell struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	next int // number of the next mark
}

// Start runs a bash in a directory, with programs from the folder bin before others. The
// commands of setup are run first.
func Start(dir, bin, setup string) (*Shell, error) {
	s := &Shell{cmd: exec.Command("bash", "--noprofile", "--norc")}
	s.cmd.Dir = dir
	s.cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LC_ALL=C")
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// Both in one, as on a terminal.
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	_ = w.Close() // the child has it
	s.out = bufio.NewReader(r)
	if out, code, err := s.Run(setup); err != nil || code != 0 {
		_ = s.Close()
		return nil, fmt.Errorf("setting up: exit code %d, %w\n%s", code, err, strings.Join(out, "\n"))
	}
	return s, nil
}

// Run types a command and returns what it prints, by it or by programs that were put in the
// background before, until it has ended, and its exit code.
func (s *Shell) Run(command string) (lines []string, code int, err error) {
	s.next++
	mark := fmt.Sprintf("\x01%d:", s.next)
	// Programs in the background must not read the commands that follow.
	if _, err := fmt.Fprintf(s.in, "{ %s\n} </dev/null\nprintf '\\n\\001%d:%%d\\n' $?\n", strings.TrimRight(command, "\n"), s.next); err != nil {
		return nil, 0, err
	}
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			return lines, 0, fmt.Errorf("the shell has ended: %w", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if rest, ok := strings.CutPrefix(line, mark); ok {
			code, err := strconv.Atoi(rest)
			// The line end before the mark is ours.
			if n := len(lines); n > 0 && lines[n-1] == "" {
				lines = lines[:n-1]
			}
			return lines, code, err
		}
		lines = append(lines, line)
	}
}

// Close ends the shell and what runs in it.
func (s *Shell) Close() error {
	// The jobs get a chance to clean up, as when a terminal is closed.
	_, _ = io.WriteString(s.in, "kill $(jobs -p) 2>/dev/null; wait; exit 0\n")
	_ = s.in.Close()
	_, _ = io.Copy(io.Discard, s.out)
	return s.cmd.Wait()
}
