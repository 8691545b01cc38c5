package apidoc

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// names is what a reader of the documents may look for in this module.
type names struct {
	files    []string                   // by their path from the root
	idents   map[string]bool            // that occur anywhere
	types    map[string]bool            // that are declared anywhere
	declared map[string]map[string]bool // at the top level, by package name; methods and fields as Type.Name
	tests    map[string][]string        // tests and benchmarks, by directory
}

// root is that of the module.
var root = filepath.Join("..", "..")

// readNames reads the whole module, once for all tests.
var readNames = sync.OnceValues(func() (*names, error) {
	n := &names{idents: map[string]bool{}, types: map[string]bool{}, declared: map[string]map[string]bool{}, tests: map[string][]string{}}
	fset := token.NewFileSet()
	return n, fs.WalkDir(os.DirFS(root), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || d.Name() == "fuzz" {
				return fs.SkipDir
			}
			return nil
		}
		n.files = append(n.files, file)
		if path.Ext(file) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(fset, filepath.Join(root, filepath.FromSlash(file)), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		n.add(path.Dir(file), f)
		return nil
	})
})

func (n *names) add(dir string, f *ast.File) {
	ast.Inspect(f, func(node ast.Node) bool {
		if id, ok := node.(*ast.Ident); ok {
			n.idents[id.Name] = true
		}
		return true
	})
	pkg := strings.TrimSuffix(f.Name.Name, "_test")
	if n.declared[pkg] == nil {
		n.declared[pkg] = map[string]bool{}
	}
	declared := n.declared[pkg]
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				declared[d.Name.Name] = true
				n.tests[dir] = append(n.tests[dir], d.Name.Name)
				continue
			}
			declared[typeName(d.Recv.List[0].Type)+"."+d.Name.Name] = true
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					for _, name := range s.Names {
						declared[name.Name] = true
					}
				case *ast.TypeSpec:
					declared[s.Name.Name], n.types[s.Name.Name] = true, true
					var fields *ast.FieldList
					switch u := s.Type.(type) {
					case *ast.StructType:
						fields = u.Fields
					case *ast.InterfaceType:
						fields = u.Methods
					}
					if fields == nil {
						continue
					}
					for _, field := range fields.List {
						for _, name := range field.Names {
							declared[s.Name.Name+"."+name.Name] = true
						}
					}
				}
			}
		}
	}
}

// typeName is the name of a receiver's type, without pointer and parameters.
func typeName(e ast.Expr) (name string) {
	ast.Inspect(e, func(node ast.Node) bool {
		if id, ok := node.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return true
	})
	return name
}

var (
	quoted     = regexp.MustCompile("`([^`\n]+)`")
	linked     = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	fileName   = regexp.MustCompile(`^[\w./*-]+\.(go|c|h|md|json|txt|conf|service)$`)
	identifier = regexp.MustCompile(`^[A-Za-z]\w*(\.[A-Za-z]\w*)*$`)
	camel      = regexp.MustCompile(`[a-z][A-Z]|[A-Z]{2}[a-z]|(^|\.)[A-Z][a-z]`)
	goFile     = regexp.MustCompile(`[a-z_*]+\.go\b`)
	goTest     = regexp.MustCompile(`go test [^\n` + "`" + `]*`)
	pattern    = regexp.MustCompile(`-(run|bench) '?([\w|/^$]+)'?`)
)

// missing says which names a document uses that are not there.
func (n *names) missing(dir, text string) (wrong []string) {
	for _, m := range linked.FindAllStringSubmatch(text, -1) {
		if !n.isFile(path.Join(dir, m[1])) {
			wrong = append(wrong, "link to "+m[1])
		}
	}
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		s := strings.TrimSuffix(m[1], "()")
		switch {
		case fileName.MatchString(s):
			if !n.isFile(s) {
				wrong = append(wrong, "file "+s)
			}
		case identifier.MatchString(s) && (camel.MatchString(s) || n.isMember(s)) && !n.isIdentifier(s):
			wrong = append(wrong, "name "+s)
		}
	}
	for _, command := range goTest.FindAllString(text, -1) {
		for _, m := range pattern.FindAllStringSubmatch(command, -1) {
			if !n.isTest(command, m[1], m[2]) {
				wrong = append(wrong, m[0]+" of: "+command)
			}
		}
	}
	return wrong
}

// isFile looks for a path from the root, or the end of one; with * for anything.
func (n *names) isFile(name string) bool {
	return slices.ContainsFunc(n.files, func(file string) bool {
		if strings.HasPrefix(file, name+"/") {
			return true
		}
		if ok, _ := path.Match(name, file); ok {
			return true
		}
		tail := file
		for strings.Count(tail, "/") > strings.Count(name, "/") {
			_, tail, _ = strings.Cut(tail, "/")
		}
		ok, _ := path.Match(name, tail)
		return ok
	})
}

// isMember reports whether s looks like a method or a field of one of our types.
func (n *names) isMember(s string) bool {
	first, _, dotted := strings.Cut(s, ".")
	return dotted && n.types[first]
}

func (n *names) isIdentifier(s string) bool {
	first, rest, dotted := strings.Cut(s, ".")
	if declared := n.declared[first]; dotted && declared != nil {
		return declared[rest]
	}
	if n.isMember(s) || dotted && ast.IsExported(first) {
		for _, declared := range n.declared {
			if declared[s] {
				return true
			}
		}
		return false
	}
	return n.parts(s)
}

func (n *names) parts(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !n.idents[part] {
			return false
		}
	}
	return true
}

// isTest reports whether what -run or -bench of the command names is in the package it tests.
func (n *names) isTest(command, flag, wanted string) bool {
	words := strings.Fields(command)
	dir := path.Clean(strings.Trim(words[len(words)-1], "'`"))
	all, prefix := n.tests[dir], "Test"
	if flag == "bench" {
		prefix = "Benchmark"
	}
	if wanted == "." || strings.EqualFold(wanted, "xxx") {
		return true
	}
	for one := range strings.SplitSeq(wanted, "|") {
		one, _, _ = strings.Cut(one, "/")
		re, err := regexp.Compile(one)
		if err != nil || !slices.ContainsFunc(all, func(name string) bool {
			return (strings.HasPrefix(name, prefix) || prefix == "Test" && (strings.HasPrefix(name, "Fuzz") || strings.HasPrefix(name, "Example"))) &&
				re.MatchString(name)
		}) {
			return false
		}
	}
	return true
}

// TestDocumentsNameWhatIsThere looks up the files, identifiers, links and tests that the
// documents name: a reader who searches for one finds it.
func TestDocumentsNameWhatIsThere(t *testing.T) {
	n, err := readNames()
	require.NoError(t, err)
	documents := 0
	for _, file := range n.files {
		if path.Ext(file) != ".md" {
			continue
		}
		documents++
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		require.NoError(t, err)
		assert.Empty(t, n.missing(path.Dir(file), string(b)), file)
	}
	require.Greater(t, documents, 10)
}

// TestPackageDocsListFiles looks up the files that package documentation lists.
func TestPackageDocsListFiles(t *testing.T) {
	n, err := readNames()
	require.NoError(t, err)
	listed := 0
	for _, file := range n.files {
		if path.Base(file) != "doc.go" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		require.NoError(t, err)
		for _, name := range goFile.FindAllString(string(b), -1) {
			assert.True(t, n.isFile(path.Join(path.Dir(file), name)), "%s names %s", file, name)
			listed++
		}
	}
	require.Greater(t, listed, 10)
}

// TestMissingNamesAreSeen makes sure that the test above can fail.
func TestMissingNamesAreSeen(t *testing.T) {
	n, err := readNames()
	require.NoError(t, err)
	for text, want := range map[string][]string{
		"`control.Engine`, `Engine.Handle`, `lisp.Parse()`, `readNames`":        nil,
		"`internal/apidoc/apidoc.go`, `docs_test.go`, `lisp_*.o`":               nil,
		"[a](../README.md), [b](ARCHITECTURE.md#decisions), [c](https://a.b/c)": nil,
		"`go test -run XXX -bench Compare ./mapcache`":                          nil,
		"`control.Enginge`, `Engine.Handles`, `readNamez`, `control.Handle`": {
			"name control.Enginge", "name Engine.Handles", "name readNamez", "name control.Handle",
		},
		"`egress.flush`, `egress.flash`, `Config.none`":       {"name egress.flash", "name Config.none"},
		"`apidoc/apidok.go`, [a](tutorials/none.md)":          {"link to tutorials/none.md", "file apidoc/apidok.go"},
		"`go test -run 'TestAPI|TestGone' ./internal/apidoc`": {"-run 'TestAPI|TestGone' of: go test -run 'TestAPI|TestGone' ./internal/apidoc"},
	} {
		assert.Equal(t, want, n.missing("docs", text), text)
	}
}
