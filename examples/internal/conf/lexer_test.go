package conf

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLexer(t *testing.T) {
	t.Parallel()
	env := func(n string) (string, bool) { v, ok := map[string]string{"A": "alpha", "E": ""}[n]; return v, ok }
	for _, tc := range []struct {
		src  string
		want []string
	}{
		{"a=b", []string{"'a'", "'='", "'b'"}},
		{"a b{c,d}e+=f", []string{"'a'", "'b'", "'{'", "'c'", "','", "'d'", "'}'", "'e'", "'+='", "'f'"}},
		{"a # b\n// c\n/* d\n e **/ f", []string{"'a'", "'f'"}},
		{"/var/log/x.log //no", []string{"'/var/log/x.log'"}},
		{"a/*x*/b", []string{"'a'", "'b'"}},
		{`"a b" 'c d'`, []string{"'a b'", "'c d'"}},
		{`"tab\tquote\" \x41\101\q \0"`, []string{"'tab\tquote\" AAq \x00'"}},
		{`'a\'b\\c\n'`, []string{`'a'b\c\n'`}},
		{"\"one\\\ntwo\nthree\"", []string{"'onetwo\nthree'"}},
		{`${A} "x${A}y${B:-beta}" ${E} ${B} '${A}'`, []string{"'alpha'", "'xalphaybeta'", "''", "''", "'${A}'"}},
		{"${A", []string{"'${' without '}'"}},
		{"+ ( a", []string{"stray '+' (quote the value that holds it)", "stray '(' (quote the value that holds it)", "'a'"}},
		{"'a", []string{"string is never closed with '"}},
		{`"a\`, []string{`string is never closed with "`}},
	} {
		l := lexer{src: tc.src, line: 1, getenv: env}
		var got []string
		for tok := l.next(); tok.kind != tokenEOF; tok = l.next() {
			got = append(got, tok.describe())
			if len(got) > 20 {
				break
			}
		}
		if tc.src == "${A" {
			got = got[:1]
		}
		assert.Equal(t, tc.want, got, "%q", tc.src)
	}
}

func TestLineNumbers(t *testing.T) {
	t.Parallel()
	l := lexer{src: "a\n\"b\nc\" d\n/*\n*/ e \"\\\n\" f"}
	l.line = 1
	var got []int
	for tok := l.next(); tok.kind != tokenEOF; tok = l.next() {
		got = append(got, tok.line)
	}
	assert.Equal(t, []int{1, 2, 3, 5, 5, 6}, got)
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	names := slices.Collect(maps.Keys(known))
	for unknown, want := range map[string]string{
		"map-resolvr":           "map-resolver",
		"Map_Resolver":          "map-resolver",
		"databse-mapping":       "database-mapping",
		"static-map-cahce":      "static-map-cache",
		"dbeug":                 "debug",
		"proxy-etr-ip4":         "proxy-etr-ipv4",
		"x":                     "",
		"":                      "",
		"something-else":        "",
		strings.Repeat("m", 99): "",
	} {
		assert.Equal(t, want, Suggest(unknown, slices.Clone(names)), unknown)
	}
}

// TestTable holds the table against mistakes in itself.
func TestTable(t *testing.T) {
	t.Parallel()
	var walk func(path string, table options)
	walk = func(path string, table options) {
		for name, o := range table {
			p := join(path, name)
			assert.Equal(t, strings.ToLower(name), name, p)
			if o.kind == kindInt && o.support == supported {
				assert.Less(t, o.min, o.max, p)
			}
			assert.Equal(t, o.support != supported, o.why != "", "%s: a reason, and only for what is not supported", p)
			assert.Equal(t, o.kind == kindSection, o.sub != nil, p)
			assert.True(t, o.harmless == "" || o.support != supported, p)
			walk(p, o.sub)
		}
	}
	walk("", known)
}
