// Package apidoc prints the exported API of a package in a form made for
// diffs: one declaration after the other, without comments, in a fixed order.
package apidoc

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Text returns the exported API of the package in dir as it is built for
// linux/amd64, so that the result is the same wherever the test runs.
func Text(dir, importPath string) (string, error) {
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = "linux", "amd64", false
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if ok, err := ctx.MatchFile(dir, name); err != nil || !ok {
			if err != nil {
				return "", err
			}
			continue
		}
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return "", err
		}
		files = append(files, f)
	}
	p, err := doc.NewFromFiles(fset, files, importPath)
	if err != nil {
		return "", err
	}
	var decls []string
	add := func(node ast.Node) error {
		s, err := declaration(fset, node)
		decls = append(decls, s)
		return err
	}
	for _, list := range [][]*doc.Value{p.Consts, p.Vars} {
		for _, v := range list {
			if err := add(v.Decl); err != nil {
				return "", err
			}
		}
	}
	funcs := slices.Clone(p.Funcs)
	for _, t := range p.Types {
		if err := add(t.Decl); err != nil {
			return "", err
		}
		for _, list := range [][]*doc.Value{t.Consts, t.Vars} {
			for _, v := range list {
				if err := add(v.Decl); err != nil {
					return "", err
				}
			}
		}
		funcs = append(append(funcs, t.Funcs...), t.Methods...)
	}
	for _, f := range funcs {
		f.Decl.Body = nil
		if err := add(f.Decl); err != nil {
			return "", err
		}
	}
	slices.Sort(decls)
	return fmt.Sprintf("package %s // import %q\n\n%s\n", p.Name, importPath, strings.Join(decls, "\n")), nil
}

// declaration prints node without comments and blank lines.
func declaration(fset *token.FileSet, node ast.Node) (string, error) {
	ast.Inspect(node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			n.Doc = nil
		case *ast.FuncDecl:
			n.Doc = nil
		case *ast.Field:
			n.Doc, n.Comment = nil, nil
		case *ast.ValueSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.TypeSpec:
			n.Doc, n.Comment = nil, nil
		}
		return true
	})
	var b bytes.Buffer
	if err := (&printer.Config{Mode: printer.UseSpaces, Tabwidth: 4}).Fprint(&b, fset, node); err != nil {
		return "", err
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimRight(line, " \n"))
		}
	}
	return strings.Join(lines, "\n"), nil
}
