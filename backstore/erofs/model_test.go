package erofs_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/erofs"
)

// modelFile is a file as a simple model of layers has it: paths to files.
type modelFile struct {
	text  string // as describe prints it, behind the name
	xattr string // likewise, of directories
	dir   bool
	fresh bool // stated by the layer in progress
}

type model map[string]*modelFile

func (m model) below(dir string) []string {
	var names []string
	for name := range m {
		if strings.HasPrefix(name, dir+"/") {
			names = append(names, name)
		}
	}
	return names
}

// removeTree removes name and what is in it; of what is fresh only all.
func (m model) removeTree(name string) {
	for _, n := range m.below(name) {
		delete(m, n)
	}
	delete(m, name)
}

// hide removes what is in dir and not fresh.
func (m model) hide(dir string) {
	for _, n := range m.below(dir) {
		if !m[n].fresh {
			delete(m, n)
		}
	}
}

func (m model) clone() model {
	c := maps.Clone(m)
	for name, f := range c {
		copied := *f
		c[name] = &copied
	}
	return c
}

func (m model) String() string {
	var lines []string
	for name, f := range m {
		lines = append(lines, name+f.text+f.xattr)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// parents makes sure that the directories on a path are there, and fresh; those
// that are made are as below, if there is one. It reports false if a fresh file
// is in the way.
func (m model) parents(name string, below model) bool {
	parts := strings.Split(name, "/")[1:]
	for i := 1; i < len(parts); i++ {
		p := "/" + strings.Join(parts[:i], "/")
		f := m[p]
		switch {
		case f != nil && f.dir:
			f.fresh = true
		case f != nil && f.fresh:
			return false
		default:
			delete(m, p)
			m[p] = &modelFile{" 40755 0:0 0.0", "", true, true}
			if b := below[p]; b != nil && b.dir {
				m[p].text, m[p].xattr = b.text, b.xattr
			}
		}
	}
	return true
}

// step applies one random operation to the layer and to the model.
func step(s *stack, m, below model, r *rand.Rand) {
	name := randomPath(r)
	if r.IntN(3) > 0 && len(m) > 0 { // rather something that exists
		names := slices.Sorted(maps.Keys(m))
		name = names[r.IntN(len(names))]
	}
	if !m.clone().parents(name, below) { // a path that can't be
		return
	}
	old := m[name]
	switch op := r.IntN(10); {
	case op < 4:
		m.parents(name, below)
		content := strings.Repeat(fmt.Sprint(r.IntN(1000), " "), r.IntN(2500))
		a := erofs.Attr{Mode: erofs.TypeRegular | uint16(r.IntN(0o7777)), UID: r.Uint32(), GID: r.Uint32N(9), MTime: r.Int64N(1 << 33), MTimeNsec: r.Uint32N(1e9)}
		text := fmt.Sprintf(" %o %d:%d %d.%d", a.Mode, a.UID, a.GID, a.MTime, a.MTimeNsec)
		if r.IntN(4) == 0 {
			a.Xattrs = map[string]string{"user.x": strings.Repeat("v", r.IntN(300))}
			text += fmt.Sprintf(" %v", a.Xattrs)
		}
		s.put(name, content, a)
		m.removeTree(name)
		shown := fmt.Sprintf("%q", content)
		if len(content) > 40 {
			shown = fmt.Sprintf("%q", fmt.Sprintf("%d bytes %x", len(content), content[:8]))
		}
		m[name] = &modelFile{text + " links 1 " + shown, "", false, true}
	case op < 6:
		m.parents(name, below)
		a := erofs.Attr{Mode: erofs.TypeDir | 0o700, MTime: r.Int64N(1 << 31)}
		text, xattr := fmt.Sprintf(" %o 0:0 %d.0", a.Mode, a.MTime), ""
		if old = m[name]; old != nil && old.dir && old.fresh {
			xattr = old.xattr // added to
		}
		if r.IntN(4) == 0 {
			a.Xattrs = map[string]string{"trusted.y": strings.Repeat("v", r.IntN(3000))}
			xattr = fmt.Sprintf(" %v", a.Xattrs)
		}
		s.do(s.layer.Put(s.t.Context(), name, erofs.File{Attr: a}))
		if old == nil || !old.dir {
			m.removeTree(name)
		}
		m[name] = &modelFile{text, xattr, true, true}
	case op < 7:
		m.parents(name, below)
		target := strings.Repeat("t", 1+r.IntN(100)*r.IntN(2)+r.IntN(3900)*r.IntN(2))
		s.symlink(name, target)
		m.removeTree(name)
		m[name] = &modelFile{" 120777 0:0 0.0 -> " + target, "", false, true}
	case op < 9:
		m.parents(name, below)
		s.remove(name)
		switch {
		case old == nil:
		case !old.fresh:
			m.removeTree(name)
		case old.dir:
			m.hide(name)
		}
	case old != nil && old.dir:
		m.parents(name, below)
		s.opaque(name)
		old.fresh = true
		m.hide(name)
	}
}

func randomPath(r *rand.Rand) string {
	name := ""
	for range 1 + r.IntN(4) {
		name += fmt.Sprintf("/%s%d", strings.Repeat("n", 1+r.IntN(2)*100), r.IntN(8))
	}
	return name
}

// TestModel does the same to layers and to a simple model of them, and compares
// all there is after each layer.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, m := newStack(t), model{}
		for layer := range 8 {
			s.begin()
			below := m.clone()
			for range r.IntN(200) {
				step(s, m, below, r)
			}
			s.end()
			if got, want := s.tree(), m.String(); got != want {
				t.Fatalf("seed %d, layer %d:\n%s", seed, layer, firstDifference(got, want))
			}
			for _, f := range m {
				f.fresh = false
			}
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("got  %.300s\nwant %.300s", g[i], w[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(g), len(w))
}
