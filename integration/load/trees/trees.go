// Package trees loads a file system with tar and rm: trees of many small files
// that are unpacked, compared and removed, over and over and several at once, as
// an image or a build does. Files are not made durable; what is unpacked must be
// there until it is removed.
package trees

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Load unpacks and removes one archive.
type Load struct {
	seed    uint64
	archive string
	files   int
	bytes   int64
	done    atomic.Int64
}

// New writes an archive of so many files to a file that is not on the disk that
// is loaded.
func New(archive string, files int, seed uint64) (*Load, error) {
	l := &Load{seed: seed, archive: archive, files: files}
	f, err := os.Create(archive)
	if err != nil {
		return nil, fmt.Errorf("writing an archive: %w", err)
	}
	w := tar.NewWriter(f)
	for i := range files {
		p := l.content(i)
		l.bytes += int64(len(p))
		h := &tar.Header{Name: name(i), Mode: 0o644, Size: int64(len(p)), Format: tar.FormatPAX}
		err = errors.Join(err, w.WriteHeader(h))
		_, werr := w.Write(p)
		err = errors.Join(err, werr)
	}
	if err := errors.Join(err, w.Close(), f.Close()); err != nil {
		return nil, fmt.Errorf("writing an archive: %w", err)
	}
	return l, nil
}

func name(i int) string { return fmt.Sprintf("%d/%d/file-%d", i%7, i%29, i) }

// content is most often of some kilobytes, as files are.
func (l *Load) content(i int) []byte {
	r := rand.New(rand.NewPCG(l.seed, uint64(i)))
	p := make([]byte, r.Uint64N(512<<r.IntN(10)))
	for j := range p {
		p[j] = byte(r.Uint32())
	}
	return p
}

// Bytes is how much the files hold.
func (l *Load) Bytes() int64 { return l.bytes }

// Done returns how many trees were unpacked, compared and removed.
func (l *Load) Done() int64 { return l.done.Load() }

// Run has so many workers unpack trees in folders of root, compare and remove
// them until ctx ends. The last tree of each stays where it is.
func (l *Load) Run(ctx context.Context, root string, workers int) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range workers {
		dir := filepath.Join(root, fmt.Sprintf("tree-%d", i))
		g.Go(func() error {
			for ctx.Err() == nil {
				if err := l.cycle(dir); err != nil {
					return err
				}
				l.done.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("loading a file system with trees: %w", err)
	}
	return nil
}

// cycle replaces a tree.
func (l *Load) cycle(dir string) error {
	if err := Remove(dir); err != nil {
		return err
	}
	if err := l.Unpack(dir); err != nil {
		return err
	}
	return l.Compare(dir)
}

// Unpack has tar unpack the archive in a new folder.
func (l *Load) Unpack(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return run("tar", "--extract", "--directory", dir, "--file", l.archive)
}

// Remove has rm remove a folder, if it is there.
func Remove(dir string) error { return run("rm", "-rf", dir) }

func run(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// Compare reads a tree, from the disk where the kernel has written it already, and
// reports the first difference.
func (l *Load) Compare(dir string) error {
	for i := range l.files {
		file := filepath.Join(dir, name(i))
		got, err := read(file)
		if err != nil {
			return err
		}
		if want := l.content(i); !bytes.Equal(got, want) {
			at := 0
			for at < min(len(got), len(want)) && got[at] == want[at] {
				at++
			}
			return fmt.Errorf("%s has %d bytes and differs at %d from the %d that were unpacked", file, len(got), at, len(want))
		}
	}
	return nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, fmt.Errorf("dropping pages of %s: %w", file, err)
	}
	return io.ReadAll(f)
}
