package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
)

// partialName is the name of a file that is being downloaded, as upstream's.
const partialName = ".download"

// partial is the beginning of a blob in a file, and its hash so far.
type partial struct {
	dir  string
	f    *os.File
	size int64 // bytes from the start that the file has and hash knows
	hash digest.Verifier
}

// openPartial opens what there is of a blob of so many bytes in dir, which may
// be nothing.
func openPartial(ctx context.Context, dir string, dgst digest.Digest, size int64) (*partial, error) {
	f, err := os.OpenFile(filepath.Join(dir, partialName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	p := &partial{dir: dir, f: f, hash: dgst.Verifier()}
	if err := p.resume(ctx, size); err != nil {
		f.Close()
		return nil, fmt.Errorf("resuming %s: %w", f.Name(), err)
	}
	return p, nil
}

// resume hashes what is there.
func (p *partial) resume(ctx context.Context, size int64) error {
	st, err := p.f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	if st.Size() > size { // of another blob, or no beginning of one
		return p.f.Truncate(0)
	}
	buf := make([]byte, batchSize)
	for p.size < st.Size() {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := p.f.ReadAt(buf[:min(batchSize, st.Size()-p.size)], p.size)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return errors.Join(err, p.f.Truncate(0))
		}
		_, _ = p.hash.Write(buf[:n]) // a hash cannot fail
		p.size += int64(n)
	}
	return nil
}

// add appends data. After an error p cannot go on.
func (p *partial) add(data []byte) error {
	if _, err := p.f.WriteAt(data, p.size); err != nil {
		return err
	}
	// Begin to write now, so that nobody has to wait for all of it later. It
	// is a hint: if it fails, Sync will say so.
	_ = unix.SyncFileRange(int(p.f.Fd()), p.size, int64(len(data)), unix.SYNC_FILE_RANGE_WRITE)
	_, _ = p.hash.Write(data)
	p.size += int64(len(data))
	return nil
}

// verified reports whether the file holds the blob.
func (p *partial) verified() bool { return p.hash.Verified() }

// commit makes the file the layer's local copy, durably.
func (p *partial) commit() error {
	if err := p.f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(p.f.Name(), filepath.Join(p.dir, backstore.LayerFile)); err != nil {
		return err
	}
	return syncDir(p.dir)
}

// drop deletes the file.
func (p *partial) drop() error {
	if err := os.Remove(p.f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// close closes the file. What was added stays unless it was dropped.
func (p *partial) close() error { return p.f.Close() }

// checkSpace returns ErrDiskFull if the file system of dir has no room for need
// bytes beside reserve.
func checkSpace(dir string, need, reserve int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("looking for space in %s: %w", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free < need+reserve {
		return fmt.Errorf("%w: %s has %d bytes free, %d are needed and %d to be left", ErrDiskFull, dir, free, need, reserve)
	}
	return nil
}

// outOfSpace turns what a full disk or an exhausted quota says into ErrDiskFull.
func outOfSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
