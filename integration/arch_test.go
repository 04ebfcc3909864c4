package integration_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/reprise-containers/reprise"

// Size budgets in lines.
const (
	maxFile   = 600
	maxFunc   = 80
	maxTable  = 120 // a function that is one long switch
	maxMain   = 60
	tableCase = 8 // cases that make a switch a table
)

// rank orders the top folders: a package imports only its own folder and
// those of a lower rank.
var rank = map[string]int{
	"remote":      0,
	"cache":       1,
	"tracelayer":  2,
	"backstore":   3,
	"snapshot":    4,
	"cmd":         5,
	"integration": 6,
}

// source is one parsed Go file of the module.
type source struct {
	name string // relative to the module root, with slashes
	dir  string
	test bool
	file *ast.File
	fset *token.FileSet
}

func (s source) imports() []string {
	var out []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err == nil {
			out = append(out, p)
		}
	}
	return out
}

func (s source) lines(n ast.Node) int {
	return s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the test's folder")
	return ""
}

func sources(t *testing.T) []source {
	t.Helper()
	root := moduleRoot(t)
	var out []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && p != root
			_, err := os.Stat(filepath.Join(p, "go.mod"))
			if hidden || d.Name() == "testdata" || p != root && err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		name = filepath.ToSlash(name)
		out = append(out, source{name, path.Dir(name), strings.HasSuffix(name, "_test.go"), f, fset})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatal("no Go files found")
	}
	return out
}

func top(dir string) string { t, _, _ := strings.Cut(dir, "/"); return t }

// TestImportDirection pins cmd, integration -> snapshot -> backstore ->
// tracelayer -> cache -> remote, and remote/blob as the only part of remote
// that cache, tracelayer and backstore know.
func TestImportDirection(t *testing.T) {
	for _, s := range sources(t) {
		from, known := rank[top(s.dir)]
		if !known {
			t.Errorf("%s: folder %s has no place in the import order", s.name, top(s.dir))
			continue
		}
		for _, p := range s.imports() {
			rel, ok := strings.CutPrefix(p, module+"/")
			if !ok {
				continue
			}
			if msg := forbidden(s, from, rel); msg != "" {
				t.Errorf("%s imports %s: %s", s.name, rel, msg)
			}
		}
	}
}

func forbidden(s source, from int, rel string) string {
	to, known := rank[top(rel)]
	leaf := rel == "remote/blob" || strings.HasPrefix(rel, "remote/blob/")
	inLeaf := s.dir == "remote/blob" || strings.HasPrefix(s.dir, "remote/blob/")
	switch {
	case !known:
		return "not a folder of the design"
	case to > from:
		return fmt.Sprintf("%s stands to the right of %s", top(s.dir), top(rel))
	case inLeaf && !leaf:
		return "remote/blob is a leaf"
	case top(rel) == "remote" && !leaf && slices.Contains([]string{"cache", "tracelayer", "backstore"}, top(s.dir)):
		return "only remote/blob may be imported here"
	}
	return ""
}

// TestJoins pins the two places that know more than their neighbours.
func TestJoins(t *testing.T) {
	type use struct{ registry, cache, chain bool }
	uses := map[string]use{}
	for _, s := range sources(t) {
		for _, p := range s.imports() {
			if strings.HasPrefix(p, "github.com/prometheus/") && s.dir != "cmd/internal/metrics" {
				t.Errorf("%s imports %s: only cmd/internal/metrics does", s.name, p)
			}
			if s.test {
				continue
			}
			u := uses[s.dir]
			u.registry = u.registry || p == module+"/remote/registry"
			u.cache = u.cache || p == module+"/cache"
			u.chain = u.chain || p == module+"/cmd/internal/chain"
			uses[s.dir] = u
		}
	}
	for dir, u := range uses {
		// A program makes both and hands them to the chain.
		if u.registry && u.cache && !u.chain && dir != "cmd/internal/chain" && top(dir) != "integration" {
			t.Errorf("%s joins a registry and a cache: only cmd/internal/chain does", dir)
		}
	}
}

func TestPackageComments(t *testing.T) {
	commented := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			commented[s.dir] = commented[s.dir] || s.file.Doc != nil
		}
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestSizeBudgets(t *testing.T) {
	for _, s := range sources(t) {
		if ast.IsGenerated(s.file) {
			continue
		}
		limit := maxFile
		if top(s.dir) == "cmd" && path.Base(s.name) == "main.go" {
			limit = maxMain
		}
		if n := s.fset.File(s.file.FileStart).LineCount(); n > limit {
			t.Errorf("%s has %d lines, the limit is %d", s.name, n, limit)
		}
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			limit := maxFunc
			if isTable(f) {
				limit = maxTable
			}
			if n := s.lines(f); n > limit {
				t.Errorf("%s: func %s has %d lines, the limit is %d", s.name, f.Name.Name, n, limit)
			}
		}
	}
}

// isTable reports whether f holds a switch with many cases.
func isTable(f *ast.FuncDecl) bool {
	table := false
	ast.Inspect(f.Body, func(n ast.Node) bool {
		var body *ast.BlockStmt
		switch n := n.(type) {
		case *ast.SwitchStmt:
			body = n.Body
		case *ast.TypeSwitchStmt:
			body = n.Body
		}
		table = table || body != nil && len(body.List) >= tableCase
		return true
	})
	return table
}
