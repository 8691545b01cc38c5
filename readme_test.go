package xtrkit_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestREADMEShowsTheExample keeps the code block of README.md the one that
// Example compiles and runs.
func TestREADMEShowsTheExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)

	_, block, ok := strings.Cut(string(readme), "```go\n")
	require.True(t, ok)
	block, _, ok = strings.Cut(block, "```")
	require.True(t, ok)

	_, example, ok := strings.Cut(string(source), "\t// README begins\n")
	require.True(t, ok)
	example, _, ok = strings.Cut(example, "\t// README ends\n")
	require.True(t, ok)
	var want strings.Builder
	for line := range strings.Lines(example) {
		want.WriteString(strings.TrimPrefix(line, "\t"))
	}
	require.Equal(t, want.String(), block)
}

// TestREADMEQuotesBenchmarks keeps the figures of README.md those of docs/BENCHMARKS.md.
func TestREADMEQuotesBenchmarks(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	benchmarks, err := os.ReadFile("docs/BENCHMARKS.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(readme), "\n## How fast\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	rows := 0
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| ") {
			require.Contains(t, string(benchmarks), "\n"+line)
			rows++
		}
	}
	require.Positive(t, rows)
}
