package erofs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

var errTooLarge = errors.New("the image needs more than the 2^32 blocks that erofs has numbers for")

// plan is where a node is to be.
type plan struct {
	xattrs []byte
	inline bool       // content is behind the inode
	start  uint32     // first block of content that is not, noBlock if there is none
	size   int64      // of the content, bytes
	groups [][]string // names of a directory by block
	moved  bool       // blocks of a directory are not where they were
	write  bool       // the inode is to be written
}

// placer decides where everything goes that the layer changes.
type placer struct {
	*Layer
	cursor int64   // where the next inode may be, bytes
	files  []*node // all that got a plan, in the order of the walk
	dirs   []*node // those that are directories
}

// place plans inodes from the first free block on and then the blocks of
// content that is neither a regular file's nor behind an inode.
func (l *Layer) place(ctx context.Context) (*placer, error) {
	p := &placer{Layer: l, cursor: int64(l.next) * BlockSize}
	if err := p.directory(ctx, l.root); err != nil {
		return nil, err
	}
	end := (p.cursor + BlockSize - 1) / BlockSize
	if end > math.MaxUint32 {
		return nil, errTooLarge
	}
	l.next = uint32(end)
	for _, n := range p.files {
		if err := p.content(n); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// directory plans n, what is in it, and then the directories in it, as far as
// the layer had to do with them.
func (p *placer) directory(ctx context.Context, n *node) error {
	children, err := p.children(ctx, n)
	if err != nil {
		return err
	}
	n.count()
	moves, err := p.planDir(n)
	if err != nil {
		return fmt.Errorf("placing directory %s: %w", n.path(), err)
	}
	names := slices.Sorted(maps.Keys(children))
	for _, name := range names {
		if c := children[name]; c.fresh && !c.isDir() && c.plan == nil {
			if err := p.planFile(n, name, c); err != nil {
				return fmt.Errorf("placing %s in %s: %w", name, n.path(), err)
			}
		}
	}
	for _, name := range names {
		c := children[name]
		// What is in a directory that got another number has to know it.
		if c.isDir() && (c.fresh || c.dirty || moves) {
			if err := p.directory(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// count counts the links of a directory: its name, its own "." and the ".." of
// each directory in it.
func (n *node) count() {
	links := uint32(2)
	for _, c := range n.dir.children {
		if c.isDir() {
			links++
		}
	}
	if links != n.links {
		n.links, n.dirty = links, true
	}
}

// planDir plans the directory n. It reports whether its number is a new one.
func (p *placer) planDir(n *node) (moves bool, err error) {
	pl := &plan{start: noBlock}
	n.plan = pl
	if pl.xattrs, err = encodeXattrs(n.Xattrs); err != nil {
		return false, err
	}
	names := append(slices.Collect(maps.Keys(n.dir.children)), ".", "..")
	slices.Sort(names)
	header := inodeSize + len(pl.xattrs)
	pl.arrange(n, names, header)
	if moves, err = p.settle(n, header, namesSize(names)); err != nil {
		return false, err
	}
	if !pl.inline && pl.start == noBlock {
		pl.groups, pl.moved = splitNames(names), true
	}
	last := pl.groups[len(pl.groups)-1]
	pl.size = int64(len(pl.groups)-1)*BlockSize + int64(namesSize(last))
	pl.write = n.dirty || n.nid == 0 || pl.moved || !pl.like(n.below)
	p.assign(n, header, int(pl.size))
	p.dirs = append(p.dirs, n)
	return moves, nil
}

// arrange distributes the names of the directory n: to the blocks it has if
// they take them, or to one piece behind the inode if that may be.
func (pl *plan) arrange(n *node, names []string, header int) {
	if n.below != nil && n.below.layout == layoutPlain {
		if pl.groups = regroup(n.dir.blocks, names); pl.groups != nil {
			pl.start = n.below.start
			return
		}
	}
	total := namesSize(names)
	pl.groups = [][]string{names}
	pl.inline = total <= inlineDir && header+total <= BlockSize
}

// settle decides whether the directory n, with total bytes of names, stays where
// its inode is, without the names behind it if there is no room for them. If it
// can't, it loses its number, and settle reports it.
func (p *placer) settle(n *node, header, total int) (moves bool, err error) {
	if n.nid == 0 {
		return false, nil
	}
	room := p.room(n)
	switch {
	case n.plan.inline && fits(int64(n.nid)*slotSize, room, header, total):
	case header <= room:
		n.plan.inline = false
	case n.nid == rootNID:
		return false, fmt.Errorf("extended attributes of the root directory take %d bytes, there is room for %d", header-inodeSize, room-inodeSize)
	default:
		n.nid, moves = 0, true
	}
	return moves, nil
}

// like reports whether the inode below, if there is one, has its content where
// the plan has it, with the same size.
func (pl *plan) like(below *Inode) bool {
	return below != nil && below.Size == pl.size && pl.inline == (below.layout == layoutInline)
}

// planFile plans a file that is no directory and that the layer states as name
// in dir.
func (p *placer) planFile(dir *node, name string, n *node) error {
	pl := &plan{start: n.start, size: n.size, write: true}
	n.plan = pl
	var err error
	if pl.xattrs, err = encodeXattrs(n.Xattrs); err != nil {
		return err
	}
	header := inodeSize + len(pl.xattrs)
	pl.inline = n.kind == typeSymlink && header+len(n.target) <= BlockSize
	tail := 0
	if pl.inline {
		tail = len(n.target)
	}
	if r := dir.dir.replaced[name]; r != nil && r.links == 1 && fits(int64(r.nid)*slotSize, r.below.slot(), header, tail) {
		n.nid = r.nid
	}
	p.assign(n, header, tail)
	return nil
}

// room returns the bytes that n may take where it is.
func (p *placer) room(n *node) int {
	switch {
	case n.nid == rootNID:
		return BlockSize - rootNID*slotSize
	case n.below != nil:
		return n.below.slot()
	}
	return 0
}

// fits reports whether an inode with what is behind it fits into room bytes at
// a place. A tail must be in one block with all that is before it: Linux before
// 6.12 reads no symbolic link that isn't.
func fits(at int64, room, header, tail int) bool {
	return header+tail <= room && (tail == 0 || at/BlockSize == (at+int64(header+tail)-1)/BlockSize)
}

// assign enters n, and gives it a number if it has none: the next place where
// the inode lies in one block, with its tail if it has one.
func (p *placer) assign(n *node, header, tail int) {
	p.files = append(p.files, n)
	if n.nid != 0 {
		return
	}
	if !n.plan.inline {
		tail = 0
	}
	at := p.cursor
	if at%BlockSize+inodeSize > BlockSize || !fits(at, header+tail, header, tail) {
		at = (at + BlockSize - 1) / BlockSize * BlockSize
	}
	p.cursor = at + int64(roundUp(header+tail, slotSize))
	n.nid = uint64(at / slotSize)
	p.sb.inodes++
}

// content gives blocks to a directory or symbolic link that needs some.
func (p *placer) content(n *node) error {
	if n.plan.inline || n.plan.start != noBlock || !n.isDir() && n.kind != typeSymlink {
		return nil
	}
	start, err := p.Allocate(n.plan.size)
	n.plan.start = start
	return err
}

// regroup distributes sorted names to the blocks a directory has, each to the
// one that has its neighbours. It returns nil if they don't fit.
func regroup(blocks [][]Dirent, names []string) [][]string {
	if len(blocks) == 0 {
		return nil
	}
	groups := make([][]string, len(blocks))
	for i := range blocks {
		end := len(names)
		if i+1 < len(blocks) {
			end, _ = slices.BinarySearch(names, blocks[i+1][0].Name)
		}
		if end == 0 || namesSize(names[:end]) > BlockSize {
			return nil
		}
		groups[i], names = names[:end], names[end:]
	}
	return groups
}
