package erofs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"
	"testing"

	goerofs "github.com/erofs/go-erofs"

	"github.com/reprise-containers/reprise/backstore/erofs"
)

// lines returns the lines of the tree that start with prefix.
func (s *stack) lines(prefix string) string {
	s.t.Helper()
	var found []string
	for line := range strings.Lines(s.tree()) {
		if strings.HasPrefix(line, prefix) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "\n")
}

func (s *stack) expect(prefix, want string) {
	s.t.Helper()
	if got := s.lines(prefix); got != want {
		s.t.Errorf("under %s there is\n%s\nwant\n%s", prefix, got, want)
	}
}

// TestHardLinks: links within a layer share an inode; one to a file below
// copies it, as overlayfs does, and names below that stay keep their count.
func TestHardLinks(t *testing.T) {
	s := newStack(t)
	s.begin()
	s.file("/a", "one")
	s.link("/b", "a")
	s.link("/d/c", "/b")
	s.end()
	s.expect("/", "/a 100644 0:0 0.0 links 3 \"one\"\n/b 100644 0:0 0.0 links 3 \"one\"\n"+
		"/d 40755 0:0 0.0\n/d/c 100644 0:0 0.0 links 3 \"one\"")
	s.begin()
	s.file("/b", "two")
	s.link("/e", "a")
	s.end()
	s.expect("/", "/a 100644 0:0 0.0 links 2 \"one\"\n/b 100644 0:0 0.0 links 1 \"two\"\n"+
		"/d 40755 0:0 0.0\n/d/c 100644 0:0 0.0 links 3 \"one\"\n/e 100644 0:0 0.0 links 2 \"one\"")
	s.begin()
	s.file("/e", "three") // was linked in this chain before
	s.link("/e", "e")
	s.remove("/a")
	s.end()
	s.expect("/e", "/e 100644 0:0 0.0 links 1 \"three\"")
}

// TestReplacedDirectory: the names in it are not counted any more.
func TestReplacedDirectory(t *testing.T) {
	s := newStack(t)
	s.begin()
	s.file("/d/e/a", "x")
	s.link("/b", "d/e/a")
	s.file("/d", "y")
	s.file("/gone", "z")
	s.do(s.layer.Remove(t.Context(), "/gone"))
	s.do(s.layer.Remove(t.Context(), "/never"))
	s.end()
	s.expect("/", "/b 100644 0:0 0.0 links 1 \"x\"\n/d 100644 0:0 0.0 links 1 \"y\"")
}

// TestDeepDirectories that no entry states are made in a time that does not
// depend on how deep they are, for each.
func TestDeepDirectories(t *testing.T) {
	s := newStack(t)
	s.begin()
	s.file("/f", "x")
	s.end()
	s.begin()
	s.file(strings.Repeat("/d", 2000)+"/f", "deep")
	s.symlink("/a", strings.Repeat("d/", 2000))
	s.file("/a"+strings.Repeat("/e", 2000)+"/f", "deeper")
	s.symlink("/a/b", strings.Repeat("e/", 2000))
	s.symlink("/c", "a/b")
	s.file("/c"+strings.Repeat("/g", 1000), "still deeper")
	s.symlink("/h", "c"+strings.Repeat("/i", 2000))
	s.symlink("/k", "h"+strings.Repeat("/j", 2000))
	err := s.layer.Put(t.Context(), "/k"+strings.Repeat("/l", 2000), erofs.File{Attr: erofs.Attr{Mode: erofs.TypeDir}})
	if err == nil {
		t.Error("a path of more than eight thousand names was taken")
	}
	s.end()
	s.tree()
}

// TestSymlinksInOneBlock with all that is before their target.
func TestSymlinksInOneBlock(t *testing.T) {
	s := newStack(t)
	s.begin()
	for i := range 3000 {
		s.symlink(fmt.Sprintf("/links/%d", i), strings.Repeat("t", 1+i*7%200))
		s.file(fmt.Sprintf("/links/f%d", i), "")
	}
	s.end()
	m := s.image()
	root, err := m.Root(t.Context())
	s.do(err)
	entries, err := m.ReadDir(t.Context(), root)
	s.do(err)
	links, err := m.Inode(t.Context(), entries[len(entries)-1].NID)
	s.do(err)
	entries, err = m.ReadDir(t.Context(), links)
	s.do(err)
	for _, e := range entries {
		i, err := m.Inode(t.Context(), e.NID)
		s.do(err)
		if at := e.NID * 32 % erofs.BlockSize; i.Type() == erofs.TypeSymlink && at+64+uint64(i.Size) > erofs.BlockSize {
			t.Errorf("link %s of %d bytes crosses a block: its inode is at %d", e.Name, i.Size, at)
		}
	}
}

// TestCircles: an image in which a directory is in itself is refused.
func TestCircles(t *testing.T) {
	s := newStack(t)
	s.begin()
	s.dir("/a")
	s.dir("/b")
	s.end()
	root := bytes.Clone(s.dev.blocks[0])
	// The names of the root directory are behind its inode: entry "a" is the
	// third, after "." and "..".
	binary.LittleEndian.PutUint64(root[1152+64+2*12:], 36)
	s.dev.blocks[0] = resum(root)
	s.begin()
	if err := s.layer.Put(t.Context(), "/a/new", erofs.File{Attr: erofs.Attr{Mode: erofs.TypeDir}}); !errors.Is(err, erofs.ErrFormat) {
		t.Errorf("a directory in itself: %v", err)
	}
}

// resum sets the checksum of a block with a superblock.
func resum(block []byte) []byte {
	b := block[1024:]
	clear(b[4:8])
	binary.LittleEndian.PutUint32(b[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return block
}

// TestSymlinksOnPaths: a link that the layer states is followed and stays
// within the root; one below gives way to a directory.
func TestSymlinksOnPaths(t *testing.T) {
	s := newStack(t)
	s.begin()
	s.put("/usr/lib/keep", "", erofs.Attr{Mode: erofs.TypeRegular | 0o600})
	s.do(s.layer.Put(t.Context(), "/usr/lib", erofs.File{Attr: erofs.Attr{Mode: erofs.TypeDir | 0o711, UID: 7}}))
	s.symlink("/lib", "usr/lib")
	s.symlink("/up", "../../../usr")
	s.file("/lib/through", "x")
	s.file("/up/here", "y")
	s.end()
	s.expect("/usr/", "/usr/here 100644 0:0 0.0 links 1 \"y\"\n/usr/lib 40711 7:0 0.0\n"+
		"/usr/lib/keep 100600 0:0 0.0 links 1 \"\"\n/usr/lib/through 100644 0:0 0.0 links 1 \"x\"")
	s.begin()
	s.file("/lib/new", "z")
	s.end()
	s.expect("/lib", "/lib 40711 7:0 0.0\n/lib/new 100644 0:0 0.0 links 1 \"z\"")
	s.begin()
	s.symlink("/loop", "loop/x")
	if err := s.layer.Put(t.Context(), "/loop/y", erofs.File{Attr: erofs.Attr{Mode: erofs.TypeDir}}); err == nil {
		t.Error("a path through a loop of links was taken")
	}
}

// TestWhiteouts hide what is below and nothing of their own layer, in any order.
func TestWhiteouts(t *testing.T) {
	s := newStack(t)
	s.begin()
	s.file("/d/old", "1")
	s.file("/d/sub/old", "2")
	s.file("/f", "3")
	s.end()
	s.begin()
	s.file("/d/new", "4")
	s.opaque("/d")
	s.file("/d/newer", "5")
	s.remove("/f")
	s.file("/f", "6")
	s.remove("/f")
	s.remove("/nothing/here")
	s.end()
	s.expect("/", "/d 40755 0:0 0.0\n/d/new 100644 0:0 0.0 links 1 \"4\"\n/d/newer 100644 0:0 0.0 links 1 \"5\"\n"+
		"/f 100644 0:0 0.0 links 1 \"6\"\n/nothing 40755 0:0 0.0")
}

// big makes a layer with a directory of n names, among others.
func big(s *stack, n int) {
	s.t.Helper()
	s.begin()
	for i := range n {
		s.file(fmt.Sprintf("/many/file-%05d", 2*i), fmt.Sprint(i))
		s.file(fmt.Sprintf("/other/%d/file", i), "x")
	}
	s.end()
}

// TestOneChange: what is not touched is not written again, however large the
// directory is.
func TestOneChange(t *testing.T) {
	for name, change := range map[string]func(*stack){
		"nothing": func(s *stack) {},
		"content": func(s *stack) { s.file("/many/file-01000", "changed") },
		"mode":    func(s *stack) { s.put("/many/file-01000", "", erofs.Attr{Mode: erofs.TypeRegular | 0o4755}) },
		"added":   func(s *stack) { s.file("/many/file-01001", "added") },
		"removed": func(s *stack) { s.remove("/many/file-01000") },
		"type":    func(s *stack) { s.symlink("/many/file-01000", "x") },
		"dir":     func(s *stack) { s.dir("/other/77") },
		"deep":    func(s *stack) { s.file("/other/77/file", "changed") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t)
			big(s, 5000)
			s.begin()
			change(s)
			s.end()
			if s.written > 6 {
				t.Errorf("%d blocks of metadata were written", s.written)
			}
			s.tree()
		})
	}
}

// TestLargeDirectories grow and shrink over layers.
func TestLargeDirectories(t *testing.T) {
	s := newStack(t)
	big(s, 700)
	for layer := range 5 {
		s.begin()
		for i := range 300 {
			s.file(fmt.Sprintf("/many/file-%05d", 2*(layer*100+i)+1), "new")
			s.remove(fmt.Sprintf("/many/file-%05d", 2*(layer*150+i)))
		}
		s.end()
	}
	// The layers add 700 odd numbers and remove all 700 even ones.
	if n := strings.Count(s.lines("/many/"), "\n") + 1; n != 700 {
		t.Errorf("%d names, want 700", n)
	}
	s.begin()
	s.opaque("/many")
	s.end()
	s.expect("/many", "/many 40755 0:0 0.0")
}

// TestOtherReader has github.com/erofs/go-erofs read what was written.
func TestOtherReader(t *testing.T) {
	s := newStack(t)
	big(s, 500)
	s.begin()
	s.file("/many/file-00010", "changed")
	s.put("/x", strings.Repeat("content", 5000), erofs.Attr{
		Mode: erofs.TypeRegular | 0o4711, UID: 70000, GID: 80000, MTime: 12345, MTimeNsec: 678,
		Xattrs: map[string]string{"user.a": "b", "security.capability": "\x01\x00"},
	})
	s.symlink("/link", strings.Repeat("t", 4000))
	s.end()
	other, err := goerofs.Open(reader{s.dev})
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = fs.WalkDir(other, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		files++
		if !d.Type().IsRegular() {
			return nil
		}
		_, err = fs.ReadFile(other, path)
		return err
	})
	if want := strings.Count(s.tree(), "\n") + 2; err != nil || files != want {
		t.Errorf("%d files, want %d: %v", files, want, err)
	}
	content, err := fs.ReadFile(other, "x")
	if string(content) != strings.Repeat("content", 5000) {
		t.Errorf("content of %d bytes, %v", len(content), err)
	}
	info, err := fs.Stat(other, "x")
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*goerofs.Stat)
	if !ok || st.UID != 70000 || st.GID != 80000 || st.Mtime != 12345 || st.MtimeNs != 678 || st.Mode&(fs.ModePerm|fs.ModeSetuid) != 0o711|fs.ModeSetuid || st.Xattrs["user.a"] != "b" {
		t.Errorf("%v %+v", info.Mode(), info.Sys())
	}
}

func TestRefused(t *testing.T) {
	s := newStack(t)
	s.begin()
	s.file("/f", "x")
	s.file("/in/f", "x")
	regular := erofs.File{Attr: erofs.Attr{Mode: erofs.TypeRegular}}
	for what, err := range map[string]error{
		"path out of the root":     s.layer.Put(t.Context(), "a/../../b", regular),
		"path through a file":      s.layer.Put(t.Context(), "f/x", regular),
		"long name":                s.layer.Put(t.Context(), "d/"+strings.Repeat("n", 256), regular),
		"no type":                  s.layer.Put(t.Context(), "g", erofs.File{}),
		"link without a target":    s.layer.Put(t.Context(), "g", erofs.File{Attr: erofs.Attr{Mode: erofs.TypeSymlink}}),
		"hard link to nothing":     s.layer.Link(t.Context(), "g", "nothing", erofs.Attr{}),
		"hard link to a directory": s.layer.Link(t.Context(), "g", "d", erofs.Attr{}),
		"hard link out":            s.layer.Link(t.Context(), "g", "../f", erofs.Attr{}),
		"hard link over its file":  s.layer.Link(t.Context(), "in", "in/f", erofs.Attr{}),
		"long path":                s.layer.Put(t.Context(), strings.Repeat("d/", 3000)+"f", regular),
		"odd attribute": s.layer.Put(t.Context(), "h", erofs.File{Attr: erofs.Attr{
			Mode: erofs.TypeRegular, Xattrs: map[string]string{"odd.name": "x"}}}),
		"large attribute": s.layer.Put(t.Context(), "h", erofs.File{Attr: erofs.Attr{
			Mode: erofs.TypeRegular, Xattrs: map[string]string{"user.x": strings.Repeat("x", 1<<16)}}}),
	} {
		if err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if _, err := s.layer.Allocate(1 << 60); err == nil {
		t.Error("2^48 blocks were allocated")
	}
	if _, err := erofs.Open(t.Context(), &device{map[uint32][]byte{}, 4}); !errors.Is(err, erofs.ErrFormat) {
		t.Errorf("opening zeros: %v", err)
	}
}

// FuzzImage opens and walks devices that are damaged.
func FuzzImage(f *testing.F) {
	s := newStack(f)
	s.begin()
	s.file("/a/b", "content")
	s.put("/c", "", erofs.Attr{Mode: erofs.TypeRegular, Xattrs: map[string]string{"user.x": "y"}})
	s.symlink("/l", "a")
	s.end()
	for at := range uint32(3) {
		f.Add(at, uint16(1024), []byte{1, 2, 3})
		f.Add(at, uint16(1152), []byte{0xff, 0xff})
	}
	f.Fuzz(func(t *testing.T, block uint32, at uint16, patch []byte) {
		d := s.dev.clone()
		b := make([]byte, erofs.BlockSize)
		copy(b, d.blocks[block%d.end])
		copy(b[at%erofs.BlockSize:], patch)
		d.blocks[block%d.end] = b
		m, err := erofs.Open(t.Context(), d)
		if err != nil {
			return
		}
		// A layer over it reads all there is, and must not panic.
		l, err := erofs.NewLayer(t.Context(), m, [16]byte{})
		if err != nil {
			return
		}
		for _, path := range []string{"/a/b/c", "/c/d", "/l/x"} {
			_ = l.Put(t.Context(), path, erofs.File{Attr: erofs.Attr{Mode: erofs.TypeDir}})
		}
		_ = l.Opaque(t.Context(), "/a")
		_, _ = l.Finish(t.Context())
	})
}
