package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Compression is that of a tar layer.
type Compression int

// The compressions that OCI images have.
const (
	Gzip Compression = iota
	Zstd
	Plain
)

func (c Compression) mediaType() string {
	return map[Compression]string{
		Gzip:  ocispec.MediaTypeImageLayerGzip,
		Zstd:  ocispec.MediaTypeImageLayerZstd,
		Plain: ocispec.MediaTypeImageLayer,
	}[c]
}

func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	switch c {
	case Gzip:
		return gzip.NewWriter(w), nil
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	default:
		return nopCloser{w}, nil
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Archive is a tar layer that is being written.
type Archive struct {
	*tar.Writer
	out io.Writer
}

// PAX are the arguments that make GNU write POSIX archives with nothing in them
// that differs from run to run.
func PAX(more ...string) []string {
	return append([]string{"--format=posix", "--pax-option=delete=atime,delete=ctime"}, more...)
}

// Add writes an entry with data.
func (a Archive) Add(h tar.Header, data string) error {
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Format == tar.FormatUnknown {
		h.Format = tar.FormatPAX
	}
	h.Size = int64(len(data))
	if err := a.WriteHeader(&h); err != nil {
		return fmt.Errorf("adding %q: %w", h.Name, err)
	}
	if _, err := io.WriteString(a, data); err != nil {
		return fmt.Errorf("adding %q: %w", h.Name, err)
	}
	return nil
}

// GNU appends what GNU tar makes of the files below dir with the arguments:
// forms of entries that archive/tar reads but does not write.
func (a Archive) GNU(ctx context.Context, dir string, args ...string) error {
	// Headers hold the process id; in a name space of its own it is 1.
	argv := append([]string{"--pid", "--fork", "tar", "--create", "--numeric-owner", "--owner=0", "--group=0",
		"--sort=name", "--mtime=" + fmt.Sprintf("@%d", epoch.Unix()), "--blocking-factor=1", "--directory", dir}, args...)
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, "unshare", argv...)
	cmd.Stderr = &complaint
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("running tar: %w: %s", err, complaint.String())
	}
	// The archive ends with two blocks of zeros; more entries follow here.
	end := make([]byte, 2*512)
	text, found := bytes.CutSuffix(text, end)
	if !found {
		return errors.New("running tar: its archive has no end")
	}
	if err := a.Flush(); err != nil {
		return err
	}
	_, err = a.out.Write(text)
	return err
}

// Sparse appends a file of the given size that is all hole but for some text
// at each of the offsets, in one of GNU tar's forms.
func (a Archive) Sparse(ctx context.Context, name string, size int64, offsets []int64, form ...string) error {
	dir, err := os.MkdirTemp("", "reprise-sparse-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	for _, off := range offsets {
		if err == nil {
			_, err = f.WriteAt(fmt.Appendf(nil, "data at %d", off), off)
		}
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("making sparse file %s: %w", name, err)
	}
	return a.GNU(ctx, dir, append(append([]string{"--sparse", "--hole-detection=raw", "--mode=0644"}, form...), name)...)
}

// Tar makes a layer of the entries that write adds.
func (l Layout) Tar(c Compression, write func(Archive) error) (Layer, error) {
	plain := sha256.New()
	desc, err := l.Blob(c.mediaType(), func(f *os.File) error {
		z, err := c.writer(f)
		if err != nil {
			return err
		}
		out := io.MultiWriter(z, plain)
		w := tar.NewWriter(out)
		if err := write(Archive{w, out}); err != nil {
			return err
		}
		return errors.Join(w.Close(), z.Close())
	})
	return Layer{desc, digest.NewDigest(digest.SHA256, plain)}, err
}
