package disktest

import (
	"io"
	"io/fs"
	"time"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

const pageSize = 4096

type page [pageSize]byte

// content is the bytes of a sparse file. Pages are replaced, never changed, so
// that a clone is cheap.
type content struct {
	size  int64
	pages map[int64]*page
}

func (c *content) clone() content {
	d := content{size: c.size, pages: make(map[int64]*page, len(c.pages))}
	for k, p := range c.pages {
		d.pages[k] = p
	}
	return d
}

// read fills p from off on; what is not there is zeros.
func (c *content) read(p []byte, off int64) {
	for len(p) > 0 {
		n := min(len(p), int(pageSize-off%pageSize))
		if pg := c.pages[off/pageSize]; pg != nil {
			copy(p[:n], pg[off%pageSize:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

func (c *content) write(p []byte, off int64) {
	if c.pages == nil {
		c.pages = make(map[int64]*page)
	}
	for len(p) > 0 {
		pg := new(page)
		if old := c.pages[off/pageSize]; old != nil {
			*pg = *old
		}
		n := copy(pg[off%pageSize:], p)
		c.pages[off/pageSize] = pg
		p, off = p[n:], off+int64(n)
	}
	c.size = max(c.size, off)
}

// punch makes n bytes at off zeros.
func (c *content) punch(off, n int64) {
	for end := min(off+n, (c.size+pageSize-1)/pageSize*pageSize); off < end; {
		k := min(end-off, pageSize-off%pageSize)
		if k == pageSize {
			delete(c.pages, off/pageSize)
		} else if old := c.pages[off/pageSize]; old != nil {
			pg := *old
			clear(pg[off%pageSize:][:k])
			c.pages[off/pageSize] = &pg
		}
		off += k
	}
}

func (c *content) truncate(size int64) {
	if size < c.size {
		c.punch(size, c.size-size+pageSize)
	}
	c.size = size
}

// inode is a file.
type inode struct {
	number  uint64
	open    int
	changed time.Time
	now     content // as every process sees it
	synced  content // as of the last sync
}

func (i *inode) allocated() int64 { return int64(len(i.now.pages)) * pageSize }

func (i *inode) info() disk.Info {
	return disk.Info{Inode: i.number, Size: i.now.size, Allocated: i.allocated(), ModTime: i.changed}
}

// file is an open inode.
type file struct {
	fs     *FS
	i      *inode
	name   string
	closed bool
}

func (f *file) begin(kind string) error {
	if err := f.fs.begin(kind, f.name); err != nil {
		return err
	}
	if f.closed {
		f.fs.mu.Unlock()
		return &fs.PathError{Op: kind, Path: f.name, Err: fs.ErrClosed}
	}
	return nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.begin("ReadAt"); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	n := max(0, min(int64(len(p)), f.i.now.size-off))
	f.i.now.read(p[:n], off)
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.begin("WriteAt"); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	if err := f.fs.write(f.i, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) Truncate(size int64) error {
	if err := f.begin("Truncate"); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.i.now.truncate(size)
	return nil
}

func (f *file) Datasync() error {
	if err := f.begin("Datasync"); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.i.synced = f.i.now.clone()
	return nil
}

func (f *file) Punch(off, n int64) error {
	if err := f.begin("Punch"); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.i.now.punch(off, n)
	return nil
}

func (f *file) Stat() (disk.Info, error) {
	if err := f.begin("Stat"); err != nil {
		return disk.Info{}, err
	}
	defer f.fs.mu.Unlock()
	return f.i.info(), nil
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: "Close", Path: f.name, Err: fs.ErrClosed}
	}
	f.closed = true
	f.i.open--
	f.fs.forget(f.i)
	return nil
}
