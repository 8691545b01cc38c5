package conformance

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the table of docs/CONFORMANCE.md")

const (
	page  = "../../docs/CONFORMANCE.md"
	begin = "<!-- generated: go test ./internal/conformance -update -->\n"
	end   = "<!-- end of generated part -->\n"
)

var levels = []string{"MUST", "SHOULD", "MAY", "implied", "stated"}

type requirement struct{ id, level, pkg string }

func requirements(t *testing.T) []requirement {
	t.Helper()
	b, err := os.ReadFile("testdata/requirements.tsv")
	require.NoError(t, err)
	var all []requirement
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.Split(line, "\t")
		require.Len(t, f, 3, "line %d", i+1)
		if i > 0 {
			all = append(all, requirement{f[0], f[1], f[2]})
		}
	}
	return all
}

var citation = regexp.MustCompile(`\b(?:\d{4}i?|nat19i?)-[0-9A-Z]+(?:\.[0-9]+)*-s?\d+\b`)

// cited returns the ids that comments of tests name, with the files they are in.
func cited(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	root := filepath.Join("..", "..")
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || path != root && strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			_, comment, ok := strings.Cut(line, "//")
			if !ok {
				continue
			}
			for _, id := range citation.FindAllString(comment, -1) {
				if files := found[id]; !slices.Contains(files, filepath.ToSlash(rel)) {
					found[id] = append(files, filepath.ToSlash(rel))
				}
			}
		}
		return nil
	}))
	return found
}

// TestCitationsExist catches a typing error in an id.
func TestCitationsExist(t *testing.T) {
	known := map[string]bool{}
	for _, r := range requirements(t) {
		known[r.id] = true
	}
	for id, files := range cited(t) {
		if strings.HasPrefix(filepath.Base(files[0]), "conformance_test") {
			continue
		}
		require.True(t, known[id], "%s names %s, which is no requirement", files, id)
	}
}

func TestConformancePage(t *testing.T) {
	b, err := os.ReadFile(page)
	require.NoError(t, err)
	head, rest, ok := bytes.Cut(b, []byte(begin))
	require.True(t, ok, "no %q in %s", begin, page)
	table, tail, ok := bytes.Cut(rest, []byte(end))
	require.True(t, ok, "no %q in %s", end, page)
	want := tables(requirements(t), cited(t))
	if *update {
		require.NoError(t, os.WriteFile(page, slices.Concat(head, []byte(begin), []byte(want), []byte(end), tail), 0o644))
		return
	}
	if diff := differing(string(table), want); len(diff) > 0 {
		t.Errorf("%d lines differ, for example\n%s\nrun: go test ./internal/conformance -update",
			len(diff), strings.Join(diff[:min(len(diff), 6)], "\n"))
	}
}

// differing returns the lines that only one of the texts has.
func differing(page, want string) []string {
	count := map[string]int{}
	for line := range strings.Lines(page) {
		count[line]--
	}
	for line := range strings.Lines(want) {
		count[line]++
	}
	var diff []string
	for line, n := range count {
		if n < 0 {
			diff = append(diff, "- "+strings.TrimSpace(line))
		} else if n > 0 {
			diff = append(diff, "+ "+strings.TrimSpace(line))
		}
	}
	slices.Sort(diff)
	return diff
}

// tables renders what the page shows: counts by package, then by requirement
// where it is tested.
func tables(all []requirement, cited map[string][]string) string {
	var s strings.Builder
	counts := map[string]map[string][2]int{}
	var packages []string
	for _, r := range all {
		if counts[r.pkg] == nil {
			counts[r.pkg] = map[string][2]int{}
			packages = append(packages, r.pkg)
		}
		c := counts[r.pkg][r.level]
		c[1]++
		if len(cited[r.id]) > 0 {
			c[0]++
		}
		counts[r.pkg][r.level] = c
	}
	slices.Sort(packages)
	s.WriteString("| package | " + strings.Join(levels, " | ") + " |\n|---" + strings.Repeat("|---", len(levels)) + "|\n")
	for _, p := range packages {
		s.WriteString("| " + p)
		for _, l := range levels {
			if c := counts[p][l]; c[1] > 0 {
				fmt.Fprintf(&s, " | %d/%d", c[0], c[1])
			} else {
				s.WriteString(" | -")
			}
		}
		s.WriteString(" |\n")
	}
	s.WriteString("\n| requirement | level | tested in |\n|---|---|---|\n")
	for _, r := range all {
		if files := cited[r.id]; len(files) > 0 {
			slices.Sort(files)
			fmt.Fprintf(&s, "| %s | %s | %s |\n", r.id, r.level, strings.Join(files, ", "))
		}
	}
	return s.String()
}
