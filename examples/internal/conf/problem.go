package conf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration file.
type Problem struct {
	File   string
	Line   int    // counted from 1; 0: the file as a whole; commandLine
	Option string // dotted path as in map-server.key; may be empty
	Text   string // what is wrong and what to do
}

// commandLine is the line of what stands in no file.
const commandLine = -1

// String prints the problem as compilers do: file:line: option: text.
func (p Problem) String() string {
	var b strings.Builder
	switch {
	case p.Line == commandLine:
		b.WriteString("command line")
	case p.Line > 0:
		fmt.Fprintf(&b, "%s:%d", p.File, p.Line)
	default:
		b.WriteString(p.File)
	}
	b.WriteString(": ")
	if p.Option != "" {
		b.WriteString(p.Option + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Error is returned for a file that cannot be used. It lists every problem
// found, in the order of the file, one per line.
type Error struct {
	Problems []Problem
	// Passing: nothing is wrong but that host names could not be resolved, which may
	// be otherwise soon.
	Passing bool
}

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// problems collects what is wrong while a file is read.
type problems struct {
	file       string
	errors     []Problem
	unresolved int // of the errors, those of host names
	warnings   []Problem
}

func (p *problems) errorf(line int, option, format string, args ...any) {
	e := Problem{File: p.file, Line: line, Option: option, Text: fmt.Sprintf(format, args...)}
	if slices.Contains(p.errors, e) {
		return // one line can stand for both families
	}
	p.errors = append(p.errors, e)
	if slices.ContainsFunc(args, func(a any) bool { err, ok := a.(error); return ok && errors.Is(err, errUnresolved) }) {
		p.unresolved++
	}
}

func (p *problems) warnf(line int, option, format string, args ...any) {
	p.warnings = append(p.warnings, Problem{File: p.file, Line: line, Option: option, Text: fmt.Sprintf(format, args...)})
}

// err returns the errors collected, sorted by line, or nil.
func (p *problems) err() error {
	if len(p.errors) == 0 {
		return nil
	}
	sortByLine(p.errors)
	return &Error{Problems: p.errors, Passing: p.unresolved == len(p.errors)}
}
