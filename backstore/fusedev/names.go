package fusedev

import (
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// rootNode is the inode number of the root directory.
const rootNode = fuse.FUSE_ROOT_ID

// attrSeconds is how long the kernel may keep attributes. They never change, but
// for the size of a device that can be written, and then the kernel is told to ask
// again. If it asked each time, who lists the loop devices of the machine would
// wait while there is no daemon.
// Names are not cached: they are looked up once per mount, and a device that
// was removed may come back under the same ID with another inode number.
const attrSeconds = 24 * 60 * 60

// names answers the kernel's questions about names and attributes.
type names struct {
	fuse.RawFileSystem
	table *table
}

func newNames(t *table) *names {
	return &names{RawFileSystem: fuse.NewDefaultRawFileSystem(), table: t}
}

// Lookup implements fuse.RawFileSystem.
func (n *names) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	e := n.find(name)
	if h.NodeId != rootNode || e == nil {
		return fuse.ENOENT
	}
	out.NodeId = e.node
	out.Attr, out.AttrValid = fileAttr(e), attrSeconds
	return fuse.OK
}

// find returns the entry called name, which is its ID or its fileName.
func (n *names) find(name string) *entry {
	id, _, exact := strings.Cut(name, "@")
	e := n.table.byID(id)
	if e != nil && exact && name != e.fileName() {
		return nil
	}
	return e
}

// GetAttr implements fuse.RawFileSystem.
func (n *names) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == rootNode {
		out.Attr = fuse.Attr{Ino: rootNode, Mode: syscall.S_IFDIR | 0o500, Nlink: 2}
		return fuse.OK
	}
	e := n.table.byNode(in.NodeId)
	if e == nil {
		return fuse.Status(syscall.ESTALE)
	}
	out.Attr, out.AttrValid = fileAttr(e), attrSeconds
	return fuse.OK
}

// Open implements fuse.RawFileSystem.
func (n *names) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	e := n.table.byNode(in.NodeId)
	if e == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if e.writable {
		// Nothing is cached: a loop device writes around the page cache, and
		// as many requests at a time as it has.
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES | fuse.FOPEN_NOFLUSH
		return fuse.OK
	}
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return fuse.EROFS
	}
	// An inode number stands for the same bytes for ever.
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// OpenDir implements fuse.RawFileSystem.
func (n *names) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

// ReadDir implements fuse.RawFileSystem.
func (n *names) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	entries := n.table.all()
	for i := in.Offset; i < uint64(len(entries)); i++ {
		e := entries[i]
		if !out.AddDirEntry(fuse.DirEntry{Name: e.id, Ino: e.node, Mode: syscall.S_IFREG, Off: i + 1}) {
			break
		}
	}
	return fuse.OK
}

// StatFs implements fuse.RawFileSystem.
func (n *names) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: 4096, Frsize: 4096, NameLen: 255}
	return fuse.OK
}

func fileAttr(e *entry) fuse.Attr {
	mode := uint32(0o400)
	if e.writable {
		mode = 0o600
	}
	size := uint64(e.size.Load())
	return fuse.Attr{
		Ino:     e.node,
		Size:    size,
		Blocks:  (size + 511) / 512,
		Mode:    syscall.S_IFREG | mode,
		Nlink:   1,
		Blksize: 4096,
	}
}
