package apidoc

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite testdata from the packages as they are")

const module = "github.com/xtrkit/xtrkit"

// TestAPI compares the exported API of every library package with its golden
// file: an API change is then a diff that a reviewer sees.
func TestAPI(t *testing.T) {
	var packages []string
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && (rel == "internal" || rel == "examples" || rel == "docs" ||
			d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && rel != ".") {
			return filepath.SkipDir
		}
		pkg := filepath.ToSlash(filepath.Dir(rel))
		if strings.HasSuffix(rel, ".go") && !strings.HasSuffix(rel, "_test.go") && pkg != "." && !slices.Contains(packages, pkg) {
			packages = append(packages, pkg)
		}
		return nil
	}))
	require.NotEmpty(t, packages)
	golden := map[string]bool{}
	for _, pkg := range packages {
		file := filepath.Join("testdata", strings.ReplaceAll(pkg, "/", "_")+".txt")
		golden[file] = true
		t.Run(pkg, func(t *testing.T) {
			got, err := Text(filepath.Join(root, filepath.FromSlash(pkg)), module+"/"+pkg)
			require.NoError(t, err)
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err, "a new package: go test ./internal/apidoc -update")
			require.Equal(t, string(want), got, "the exported API changed; if wanted: go test ./internal/apidoc -update")
		})
	}
	left, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	require.NoError(t, err)
	for _, file := range left {
		require.True(t, golden[file], "%s describes a package that is gone", file)
	}
}

// TestTextSeesChanges makes sure that the golden test can fail.
func TestTextSeesChanges(t *testing.T) {
	dir := t.TempDir()
	write := func(src string) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "p.go"), []byte(src), 0o644))
		got, err := Text(dir, "example.net/p")
		require.NoError(t, err)
		return got
	}
	first := write("package p\n\n// F is one.\nfunc F(a int) {}\n\ntype T struct {\n\t// A\n\tA int\n\tb int\n}\n\nfunc hidden() {}\n")
	require.Contains(t, first, "func F(a int)")
	require.NotContains(t, first, "hidden")
	require.NotContains(t, first, "is one")
	require.Equal(t, first, write("package p\n\n// F is two.\nfunc F(a int) { _ = a }\n\ntype T struct {\n\tA int // B\n\tb int\n}\n"))
	require.NotEqual(t, first, write("package p\n\nfunc F(a int64) {}\n\ntype T struct {\n\tA int\n\tb int\n}\n"))
	require.NotEqual(t, first, write("package p\n\nfunc F(a int) {}\n\ntype T struct {\n\tA, C int\n\tb int\n}\n"))
}
