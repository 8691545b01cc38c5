package xtrkit_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pulledIn is the whole list of modules that a program gets which imports one of
// our packages alone.
var pulledIn = map[string][]string{
	"lisp":            nil,
	"lisp/lisplayers": {"github.com/google/gopacket"},
	"mapcache":        {"github.com/gaissmai/bart"},
	"encap":           {"github.com/gaissmai/bart", "golang.org/x/sys", "golang.org/x/time"},
	"encap/ebpf": {
		"github.com/cilium/ebpf", "github.com/gaissmai/bart", "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys", "golang.org/x/time",
	},
	"natt":              {"golang.org/x/time"},
	"control":           {"github.com/gaissmai/bart", "golang.org/x/net", "golang.org/x/sys", "golang.org/x/time"},
	"control/mapserver": {"github.com/gaissmai/bart", "golang.org/x/time"},
	"multihome":         {"github.com/gaissmai/bart", "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys"},
	"tun": {
		"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/net", "golang.org/x/sys", "golang.zx2c4.com/wireguard",
	},
	"tun/tuntest": {
		"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/net", "golang.org/x/sys", "golang.zx2c4.com/wireguard",
	},
}

// TestConsumer makes a module that imports each package alone, as a user would:
// it compiles, and pulls in what the list says and no more.
func TestConsumer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what is pulled in differs from Linux")
	}
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	ours, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	sums, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	// The versions are ours: nothing is to be looked up.
	_, requires, found := strings.Cut(string(ours), "\nrequire")
	require.True(t, found)
	write("go.mod", "module consumer\n\ngo 1.26\n\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+root+"\n\nrequire"+requires)
	write("go.sum", string(sums))
	for pkg := range pulledIn {
		write(filepath.Join(strings.ReplaceAll(pkg, "/", "_"), "main.go"), "package main\n\nimport _ \""+module+"/"+pkg+"\"\n\nfunc main() {}\n")
	}
	run := func(args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off", "GOWORK=off", "CGO_ENABLED=0")
		out, err := cmd.Output()
		if failed := (&exec.ExitError{}); err != nil && assert.ErrorAs(t, err, &failed) {
			t.Fatalf("go %s: %s", strings.Join(args, " "), failed.Stderr)
		}
		return out
	}
	run("build", "./...")
	for _, pkg := range slices.Sorted(maps.Keys(pulledIn)) {
		got := map[string]bool{}
		dec := json.NewDecoder(strings.NewReader(string(run("list", "-deps", "-json=Module,Standard", "./"+strings.ReplaceAll(pkg, "/", "_")))))
		for dec.More() {
			var p struct {
				Module   *struct{ Path string }
				Standard bool
			}
			require.NoError(t, dec.Decode(&p))
			if !p.Standard && p.Module != nil && p.Module.Path != module && p.Module.Path != "consumer" {
				got[p.Module.Path] = true
			}
		}
		assert.ElementsMatch(t, pulledIn[pkg], slices.Collect(maps.Keys(got)), pkg)
	}
}

// TestSizes: an xTR of one's own takes at most 100 lines, and the composition of
// lispmn 250.
func TestSizes(t *testing.T) {
	lines := func(file string, count func(fset *token.FileSet, f *ast.File, code map[int]bool)) int {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, 0)
		require.NoError(t, err)
		code := map[int]bool{}
		count(fset, f, code)
		return len(code)
	}
	// Lines with code, but for the imports and the packet that a kernel would make.
	n := lines("example_xtr_linux_test.go", func(fset *token.FileSet, f *ast.File, code map[int]bool) {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				if d.Tok == token.IMPORT {
					continue
				}
			case *ast.FuncDecl:
				if d.Name.Name == "packet" {
					continue
				}
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if n != nil {
					code[fset.Position(n.Pos()).Line], code[fset.Position(n.End()-1).Line] = true, true
				}
				return true
			})
		}
	})
	t.Logf("an xTR of one's own: %d lines", n)
	assert.LessOrEqual(t, n, 100)
	b, err := os.ReadFile(filepath.Join("examples", "internal", "node", "node.go"))
	require.NoError(t, err)
	assert.LessOrEqual(t, strings.Count(string(b), "\n"), 250, "node.go composes")
}
