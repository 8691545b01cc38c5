package tutorial

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	text := "Text\n\n```sh\ncat > f <<'EOF'\n# a comment\nEOF\n```\n```go\n# not run\n```\n```console\n# cat f\n# a comment\n```\n"
	_, err := Parse(strings.NewReader(text))
	require.NoError(t, err)
	steps, err := Parse(strings.NewReader(strings.ReplaceAll(text, "```console\n# cat f\n# a comment", "```console\n# cat f\na comment\nand more\n# true")))
	require.NoError(t, err)
	assert.Equal(t, []Step{
		{Line: 4, Script: true, Command: "cat > f <<'EOF'\n# a comment\nEOF\n"},
		{Line: 12, Command: "cat f\n", Want: []string{"a comment", "and more"}},
		{Line: 15, Command: "true\n"},
	}, steps)

	_, err = Parse(strings.NewReader("```console\nnobody asked\n```\n"))
	require.ErrorContains(t, err, `line 2: output before any command: "nobody asked"`)
	_, err = Parse(strings.NewReader("```sh\ntrue\n"))
	require.ErrorContains(t, err, "does not end")
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		want, got string
		same      bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a\nb", false},
		{"a\nb", "a", false},
		{"a", "a\n\n", true},
		{"a   b", "a b", true},
		{"...", "", true},
		{"...\nb", "a\na\nb", true},
		{"...\nb", "a\nb\nc", false},
		{"a\n...\nc\n...", "a\nb\nc\nd\ne", true},
		{"took 12.1 ms", "took 13 µs", true},
		{"took 12.1 ms", "took 13 bytes", false},
		{"uptime 00:12:05, expires 23:47:55", "uptime 1d 00:12:06, expires 00:00:00", true},
		{"at 2026-11-22T10:00:00Z", "at 2027-01-02 11:22:33.5", true},
		{"2026/11/22 22:08:43 lisp:", "2027/01/02 11:22:33 lisp:", true},       // of package log
		{"ok  \texample.net/m\t0.011s", "ok  \texample.net/m\t(cached)", true}, // of go test
		{"nonce 0x0123456789abcdef", "nonce 0xfedcba9876543210", true},
		{"64 bytes from 192.0.2.2: icmp_seq=1 ttl=64 time=0.1 ms", "64 bytes from 192.0.2.2: icmp_seq=1 ttl=64 time=22 ms", true},
		{"from 192.0.2.2", "from 192.0.2.3", false},
		{"port …, to (…)", "port 1234, to (a b)", true},
		{"port …, to (…)", "port 1234, to a b", false},
	} {
		assert.Equal(t, c.same, Match(strings.Split(c.want, "\n"), strings.Split(c.got, "\n")), "%q and %q", c.want, c.got)
	}
}
