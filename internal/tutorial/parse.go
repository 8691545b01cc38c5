package tutorial

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Step is one command and what the text says that it prints.
type Step struct {
	Line    int      // of the file, counted from 1
	Command string   // one or more lines
	Script  bool     // a whole sh block, of which no output is shown
	Want    []string // lines of output
}

// Parse takes the steps out of a Markdown file.
func Parse(r io.Reader) ([]Step, error) {
	var steps []Step
	var kind string // of the block that we are in
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		if fence, ok := strings.CutPrefix(strings.TrimSpace(line), "```"); ok {
			switch {
			case kind != "":
				kind = ""
			case fence == "sh":
				kind = fence
				steps = append(steps, Step{Line: n + 1, Script: true})
			case fence == "":
				kind = "text"
			default:
				kind = fence
			}
			continue
		}
		last := len(steps) - 1
		switch kind {
		case "sh":
			steps[last].Command += line + "\n"
		case "console":
			if command, ok := strings.CutPrefix(line, "# "); ok {
				steps = append(steps, Step{Line: n, Command: command + "\n"})
			} else if last < 0 || steps[last].Script {
				return nil, fmt.Errorf("line %d: output before any command: %q", n, line)
			} else {
				steps[last].Want = append(steps[last].Want, line)
			}
		}
	}
	if kind != "" {
		return nil, fmt.Errorf("the last block, of kind %q, does not end", kind)
	}
	return steps, in.Err()
}

var placeholders = []struct {
	find *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`), "<date>"},
	{regexp.MustCompile(`\d+d \d\d:\d\d:\d\d|\b\d\d:\d\d:\d\d(\.\d+)?\b`), "<time>"},
	{regexp.MustCompile(`\b(\d+h)?(\d+m)?\d+(\.\d+)? ?(ns|[µu]s|ms|s|seconds)\b`), "<time>"},
	{regexp.MustCompile(`\b(0x)?[0-9a-f]{16,}\b`), "<hex>"},
	{regexp.MustCompile(`\(\d+\.\d+s\)|\(cached\)`), "<time>"},
	{regexp.MustCompile(`time=\S+( ms)?|rtt min.*`), "<time>"},
	{regexp.MustCompile(`[ \t]+`), " "},
}

// Normal replaces what differs from run to run.
func Normal(line string) string {
	for _, p := range placeholders {
		line = p.find.ReplaceAllString(line, p.by)
	}
	return strings.TrimSpace(line)
}

// Match says whether the lines that came are those that are shown. "..." stands for any
// number of lines, as few as possible; blank lines at the end do not count.
func Match(want, got []string) bool {
	want, got = trim(want), trim(got)
	for i, w := range want {
		if strings.TrimSpace(w) == "..." {
			for skip := 0; skip <= len(got)-i; skip++ {
				if Match(want[i+1:], got[i+skip:]) {
					return true
				}
			}
			return false
		}
		if i >= len(got) || !same(w, got[i]) {
			return false
		}
	}
	return len(want) == len(got)
}

// same compares two lines, the first of which may have "…" for anything.
func same(want, got string) bool {
	want, got = Normal(want), Normal(got)
	parts := strings.Split(want, "…")
	if len(parts) == 1 {
		return want == got
	}
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got)
}

func trim(lines []string) []string {
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
