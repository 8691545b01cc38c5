package xtrkit_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/xtrkit/xtrkit"

// arrows is the whole list of imports allowed between our packages; what a
// package imports beyond it makes two parts inseparable that users take apart.
var arrows = map[string][]string{
	"":                  {},
	"lisp":              {},
	"lisp/lisplayers":   {"lisp"},
	"mapcache":          {"lisp"},
	"encap":             {"lisp", "mapcache"},
	"encap/ebpf":        {"lisp", "mapcache", "encap"},
	"natt":              {"lisp"},
	"control":           {"lisp", "mapcache", "natt"},
	"control/mapserver": {"lisp", "natt"},
	"multihome":         {},
	"tun":               {},
	"tun/tuntest":       {"tun"},
}

// stdlibOnly lists the packages that must not pull in any other module.
var stdlibOnly = []string{"lisp"}

// TestImportArrows keeps the import direction of docs/ARCHITECTURE.md.
func TestImportArrows(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(strings.TrimPrefix(fields[0], module), "/")
		if strings.HasPrefix(pkg, "examples") || strings.HasPrefix(pkg, "internal") {
			continue
		}
		allowed, known := arrows[pkg]
		require.True(t, known, "package %q is not in the list of arrows", pkg)
		for _, imp := range fields[1:] {
			rel, ours := strings.CutPrefix(imp, module+"/")
			if !ours || strings.HasPrefix(rel, "internal/") && !isProgram(imp) {
				continue
			}
			require.Contains(t, allowed, rel, "%s must not import %s", pkg, rel)
		}
	}
}

// isProgram reports whether an internal package is no helper of library packages
// but a program or a part of one.
func isProgram(pkg string) bool {
	return strings.HasPrefix(pkg, module+"/internal/msload") || strings.HasPrefix(pkg, module+"/internal/dpbench")
}

// TestInternalLeaves checks that private helpers used by library packages do
// not import the library in turn.
func TestInternalLeaves(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./internal/...") {
		fields := strings.Fields(line)
		if isProgram(fields[0]) {
			continue
		}
		for _, imp := range fields[1:] {
			if rel, ours := strings.CutPrefix(imp, module+"/"); ours {
				require.True(t, rel == "lisp" || strings.HasPrefix(rel, "internal/"),
					"%s must not import %s", fields[0], rel)
			}
		}
	}
}

func TestStandardLibraryOnly(t *testing.T) {
	for _, pkg := range stdlibOnly {
		for _, dep := range goList(t, "-deps", "./"+pkg) {
			first, _, _ := strings.Cut(dep, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(dep, "vendor/") {
				continue
			}
			require.True(t, strings.HasPrefix(dep, module+"/"), "%s pulls in %s", pkg, dep)
		}
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
