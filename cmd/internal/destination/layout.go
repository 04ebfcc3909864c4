package destination

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// Layout is an image of an OCI image layout, a directory, as a Destination. The
// directory is made when something is put.
type Layout struct {
	dir     string
	tag     string
	durable bool       // blobs are on disk before they have their names
	index   sync.Mutex // held to change index.json

	mu     sync.Mutex
	opened []*blob.File
}

// NewLayout returns the destination tag in the layout dir.
func NewLayout(dir, tag string) (*Layout, error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, ocispec.ImageLayoutFile)); err != nil && !resumable(entries) {
			return nil, fmt.Errorf("%s is a directory with something else than an OCI layout in it", dir)
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &Layout{dir: dir, tag: tag, durable: true}, nil
}

// resumable reports whether a directory holds no more than what was put into a
// layout that was never tagged, or is being tagged right now.
func resumable(entries []fs.DirEntry) bool {
	return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		name := e.Name()
		return name != ocispec.ImageBlobsDir && !strings.HasPrefix(name, tempPrefix+ocispec.ImageLayoutFile)
	})
}

// tempPrefix starts the temporary names of a layout's files.
const tempPrefix = ".new-"

// Exists implements Store.
func (l *Layout) Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	st, err := os.Stat(l.path(desc))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case st.Size() != desc.Size:
		return false, fmt.Errorf("%s has %d bytes where its descriptor says %d", l.path(desc), st.Size(), desc.Size)
	}
	return true, ctx.Err()
}

func (l *Layout) path(desc ocispec.Descriptor) string {
	return filepath.Join(l.dir, ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
}

// Put implements Store.
func (l *Layout) Put(ctx context.Context, desc ocispec.Descriptor, c Content) error {
	return l.PutReferrer(ctx, desc, c, func(ocispec.Descriptor) bool { return false })
}

// PutReferrer implements Replacer.
func (l *Layout) PutReferrer(ctx context.Context, desc ocispec.Descriptor, c Content, replaces func(ocispec.Descriptor) bool) error {
	if err := l.put(ctx, desc, c); err != nil {
		return fmt.Errorf("writing %s to %s: %w", desc.Digest, l.dir, err)
	}
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		return nil
	}
	text := make([]byte, desc.Size)
	if _, err := c.ReadAt(text, 0); err != nil {
		return err
	}
	entry, subject, ok := registry.Referrer(desc, text)
	if !ok {
		return nil
	}
	// In the index of a layout, these would make it an image with that name.
	for _, name := range []string{ocispec.AnnotationRefName, images.AnnotationImageName} {
		delete(entry.Annotations, name)
	}
	return l.list(entry, func(d ocispec.Descriptor) bool {
		return d.Annotations[ocispec.AnnotationRefName] == "" &&
			(d.Digest == entry.Digest || replaces(d) && l.refers(d, subject.Digest))
	})
}

// refers reports whether an entry of the index has the manifest subject for its
// subject.
func (l *Layout) refers(d ocispec.Descriptor, subject digest.Digest) bool {
	if d.Digest.Validate() != nil {
		return false
	}
	text, err := os.ReadFile(l.path(d))
	if err != nil {
		return false
	}
	_, of, ok := registry.Referrer(d, text)
	return ok && of.Digest == subject
}

// put writes a blob under a temporary name first. (The storage of oras-go would
// do, but leaves the temporary file of a Push that failed.)
func (l *Layout) put(ctx context.Context, desc ocispec.Descriptor, c Content) (err error) {
	if there, err := l.Exists(ctx, desc); err != nil || there {
		return err
	}
	dir := filepath.Dir(l.path(desc))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(f.Name())
		}
	}()
	sum := desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(f, sum), contextReader{ctx, c})
	switch {
	case err != nil:
		return err
	case n != desc.Size || !sum.Verified():
		return fmt.Errorf("the content has %d bytes that are not what its descriptor says", n)
	}
	err = f.Chmod(0o644)
	if err == nil && l.durable {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), l.path(desc))
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   Content
}

// Read implements io.Reader.
func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Open implements Store.
func (l *Layout) Open(desc ocispec.Descriptor) (blob.Blob, error) {
	f, err := blob.OpenFile(l.path(desc))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, f)
	return f, nil
}

// Tag implements Destination.
func (l *Layout) Tag(ctx context.Context, desc ocispec.Descriptor, text []byte) error {
	if err := l.put(ctx, desc, bytes.NewReader(text)); err != nil {
		return fmt.Errorf("writing %s to %s: %w", desc.Digest, l.dir, err)
	}
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: l.tag}
	return l.list(desc, func(d ocispec.Descriptor) bool {
		return d.Annotations[ocispec.AnnotationRefName] == l.tag
	})
}

// list puts desc into the index of the layout, in the place of what replaces
// says. Other processes may do the same.
func (l *Layout) list(desc ocispec.Descriptor, replaces func(ocispec.Descriptor) bool) (err error) {
	l.index.Lock()
	defer l.index.Unlock()
	lock, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", l.dir, err)
	}
	index, err := l.readIndex()
	if err != nil {
		return err
	}
	index.Manifests = append(slices.DeleteFunc(index.Manifests, replaces), desc)
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	version, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return errors.Join(l.write(ocispec.ImageLayoutFile, version), l.write(ocispec.ImageIndexFile, text))
}

func (l *Layout) readIndex() (ocispec.Index, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	text, err := os.ReadFile(filepath.Join(l.dir, ocispec.ImageIndexFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return index, nil
	case err != nil:
		return index, err
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return index, fmt.Errorf("parsing the index of %s: %w", l.dir, err)
	}
	return index, nil
}

// write replaces a file of the layout at once.
func (l *Layout) write(name string, text []byte) error {
	f, err := os.CreateTemp(l.dir, tempPrefix+name)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(l.dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Close implements Destination. Blobs that were opened can't be read after it.
func (l *Layout) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, f := range l.opened {
		errs = append(errs, f.Close())
	}
	l.opened = nil
	return errors.Join(errs...)
}
