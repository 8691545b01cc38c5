package conf

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// minimalServer is a file of a Map-Server without problems.
const minimalServer = "\nlisp-site { eid-prefix = 198.51.100.0/24 key = k }\n"

// TestEveryOption feeds every option of lispd.conf and oor.conf: it works, or
// what is said names line, option and reason. The table also holds all names that
// only other features of this package know: none can be forgotten.
func TestEveryOption(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i, line := range strings.Split(strings.TrimSpace(load(t, "options.tsv")), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		require.Len(t, fields, 4, "line %d", i+1)
		program, src, want := fields[1], fields[2], fields[3]
		t.Run(program+" "+src, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, want, said(t, program, src, want))
		})
		probs := &problems{}
		root := parse(src, hermetic().Getenv, probs)
		require.NoError(t, probs.err())
		names(root, seen)
	}
	var missing []string
	for name, o := range known {
		for _, path := range paths(name, o) {
			if !seen[path] && !ours[strings.SplitN(path, ".", 2)[0]] && !ours[path] {
				missing = append(missing, path)
			}
		}
	}
	slices.Sort(missing)
	assert.Empty(t, missing, "known, in neither format, and not listed as ours")
}

// said is what a program says of a file that has the option, in the form of the
// table: what is expected, if it is part of it.
func said(t *testing.T, program, src, want string) string {
	t.Helper()
	var warnings []Problem
	var err error
	if program == "ms" {
		var m *MapServerNode
		if m, err = ParseMapServer(t.Context(), "f", src+minimalServer, hermetic()); err == nil {
			warnings = m.Warnings
		}
	} else {
		var n *Node
		if n, err = ParseNode(t.Context(), "f", src+minimal, hermetic()); err == nil {
			warnings = n.Warnings
		}
	}
	kind, text, _ := strings.Cut(want, ": ")
	switch {
	case err != nil && kind == "error" && strings.Contains(err.Error(), text):
		assert.Contains(t, err.Error(), "f:1: ")
		return want
	case err != nil:
		return "error: " + err.Error()
	case len(warnings) > 0 && kind == "warning" && strings.Contains(warnings[0].String(), text):
		assert.Equal(t, 1, warnings[0].Line)
		assert.NotEmpty(t, warnings[0].Option)
		return want
	case len(warnings) > 0:
		return "warning: " + warnings[0].String()
	}
	return "ok"
}

// names collects the dotted paths of a tree.
func names(s *section, into map[string]bool) {
	for _, it := range s.items {
		into[join(s.name, it.name)] = true
		if it.section != nil {
			names(it.section, into)
		}
	}
}

func paths(name string, o option) []string {
	out := []string{name}
	for sub := range maps.Keys(o.sub) {
		out = append(out, paths(name+"."+sub, o.sub[sub])...)
	}
	return out
}

// ours are the options that neither LISPmob nor OpenOverlayRouter had, and the
// sections that have a test of their own.
var ours = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range []string{
		"control-socket", "state-file", "tun-name", "tun-table", "rloc-family", "map-server.key-id", "map-server.merge",
		"rloc-probing.rloc-probe-fast-interval", "lisp-site.name", "lisp-site.key-id", "resolver-entry",
		"pxtr", "lisp-sec", "closed-network", "uplink-mode", "dataplane", "graceful", "lan-fast-path", "firewall-marks", "uplink-policy", "rloc-probing.rloc-probe-prefer-rtt",
		// NAT traversal and the RTR.
		"nat-traversal", "nat_traversal_support", "use-nat-tunneling", "rtr-data-iface", "rtr-ifaces", "rtr-ms-node", "rtr-database-mapping",
		"ms-rtr-node", "ms-rtrs-set", "ms-advertised-rtrs-set", "rtr-iids", "rtr-require-key",
	} {
		m[name] = true
	}
	return m
}()
