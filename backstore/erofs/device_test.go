package erofs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/erofs"
)

// device is a block device in memory, made by layers.
type device struct {
	blocks map[uint32][]byte
	end    uint32 // behind the last block in use
}

func (d *device) Size() int64 { return int64(d.end) * erofs.BlockSize }

func (d *device) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) && off < d.Size() {
		at := int(off % erofs.BlockSize)
		n := min(len(p)-done, erofs.BlockSize-at)
		clear(p[done : done+n])
		if b := d.blocks[uint32(off/erofs.BlockSize)]; b != nil {
			copy(p[done:done+n], b[at:])
		}
		done, off = done+n, off+int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// reader is what other libraries want.
type reader struct{ *device }

func (r reader) ReadAt(p []byte, off int64) (int, error) {
	return r.device.ReadAt(context.Background(), p, off)
}

// clone returns a device that can be changed while d stays.
func (d *device) clone() *device { return &device{maps.Clone(d.blocks), d.end} }

// write stores content, whole blocks, from a block on.
func (d *device) write(start uint32, p []byte) {
	for len(p) > 0 {
		block := make([]byte, erofs.BlockSize)
		n := copy(block, p)
		d.blocks[start] = block
		p, start = p[n:], start+1
		d.end = max(d.end, start)
	}
}

// stack is an image while layers are added to it.
type stack struct {
	t     testing.TB
	dev   *device
	layer *erofs.Layer
	// written is the number of blocks of metadata of the last layer.
	written int
}

func newStack(t testing.TB) *stack { return &stack{t: t, dev: &device{blocks: map[uint32][]byte{}}} }

func (s *stack) image() *erofs.Image {
	s.t.Helper()
	m, err := erofs.Open(s.t.Context(), s.dev)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// begin starts a layer.
func (s *stack) begin() {
	s.t.Helper()
	var base *erofs.Image
	if s.dev.end > 0 {
		base = s.image()
	}
	var err error
	if s.layer, err = erofs.NewLayer(s.t.Context(), base, [16]byte{1}); err != nil {
		s.t.Fatal(err)
	}
	s.dev = s.dev.clone()
}

// end finishes it and puts its blocks on the device.
func (s *stack) end() {
	s.t.Helper()
	blocks, err := s.layer.Finish(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for i, b := range blocks {
		if i > 0 && b.Number <= blocks[i-1].Number || len(b.Data) != erofs.BlockSize {
			s.t.Fatalf("block %d of %d bytes follows block %d", b.Number, len(b.Data), blocks[i-1].Number)
		}
		s.dev.write(b.Number, b.Data)
	}
	s.written = len(blocks)
}

func (s *stack) do(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// file adds a regular file.
func (s *stack) file(name, content string) {
	s.t.Helper()
	s.put(name, content, erofs.Attr{Mode: erofs.TypeRegular | 0o644})
}

func (s *stack) put(name, content string, a erofs.Attr) {
	s.t.Helper()
	start, err := s.layer.Allocate(int64(len(content)))
	s.do(err)
	s.dev.write(start, []byte(content))
	s.do(s.layer.Put(s.t.Context(), name, erofs.File{Attr: a, Size: int64(len(content)), Start: start}))
}

func (s *stack) dir(name string) {
	s.t.Helper()
	s.do(s.layer.Put(s.t.Context(), name, erofs.File{Attr: erofs.Attr{Mode: erofs.TypeDir | 0o755}}))
}

func (s *stack) symlink(name, target string) {
	s.t.Helper()
	s.do(s.layer.Put(s.t.Context(), name, erofs.File{Attr: erofs.Attr{Mode: erofs.TypeSymlink | 0o777}, Target: target}))
}

func (s *stack) remove(name string) { s.t.Helper(); s.do(s.layer.Whiteout(s.t.Context(), name)) }
func (s *stack) opaque(name string) { s.t.Helper(); s.do(s.layer.Opaque(s.t.Context(), name)) }

func (s *stack) link(name, target string) {
	s.t.Helper()
	s.do(s.layer.Link(s.t.Context(), name, target, erofs.Attr{Mode: 0o644}))
}

// tree returns all there is as lines, in the order of paths, having checked
// that each directory is sorted, knows itself and its parent, and has as many
// links as it should.
func (s *stack) tree() string {
	s.t.Helper()
	m := s.image()
	root, err := m.Root(s.t.Context())
	s.do(err)
	var lines []string
	s.walk(m, "", root, root.NID, &lines)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (s *stack) walk(m *erofs.Image, path string, dir *erofs.Inode, parent uint64, lines *[]string) {
	s.t.Helper()
	entries, err := m.ReadDir(s.t.Context(), dir)
	s.do(err)
	links := uint32(2)
	for i, e := range entries {
		if i > 0 && entries[i-1].Name >= e.Name {
			s.t.Fatalf("%s: %q is followed by %q", path, entries[i-1].Name, e.Name)
		}
		switch e.Name {
		case ".":
			if e.NID != dir.NID {
				s.t.Fatalf("%s: . is %d, not %d", path, e.NID, dir.NID)
			}
			continue
		case "..":
			if e.NID != parent {
				s.t.Fatalf("%s: .. is %d, not %d", path, e.NID, parent)
			}
			continue
		}
		inode, err := m.Inode(s.t.Context(), e.NID)
		s.do(err)
		name := path + "/" + e.Name
		*lines = append(*lines, s.describe(m, name, inode))
		if inode.IsDir() {
			links++
			s.walk(m, name, inode, dir.NID, lines)
		}
	}
	if dir.Nlink != links {
		s.t.Fatalf("%s has %d links, not %d", path, dir.Nlink, links)
	}
}

func (s *stack) describe(m *erofs.Image, name string, i *erofs.Inode) string {
	s.t.Helper()
	xattrs, err := m.Xattrs(s.t.Context(), i)
	s.do(err)
	text := fmt.Sprintf("%s %o %d:%d %d.%d", name, i.Mode, i.UID, i.GID, i.MTime, i.MTimeNsec)
	if len(xattrs) > 0 {
		text += fmt.Sprintf(" %v", xattrs)
	}
	switch i.Type() {
	case erofs.TypeRegular:
		content := make([]byte, i.Size)
		s.do(m.ReadAt(s.t.Context(), i, content, 0))
		if len(content) > 40 {
			content = fmt.Appendf(nil, "%d bytes %x", len(content), bytes.TrimRight(content[:8], "\x00"))
		}
		text += fmt.Sprintf(" links %d %q", i.Nlink, content)
	case erofs.TypeSymlink:
		target, err := m.ReadLink(s.t.Context(), i)
		s.do(err)
		text += " -> " + target
	case erofs.TypeChar, erofs.TypeBlock:
		text += fmt.Sprintf(" device %#x", i.Rdev)
	}
	return text
}
