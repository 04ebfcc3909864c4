// Package transfer makes blobs of images blobs of a destination. What is there
// is not sent; what another repository of the same registry has is mounted; the
// rest is fetched, verified and sent, through a temporary file.
package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// Stored is how a blob came to its destination.
type Stored string

// The ways of a blob.
const (
	Present  Stored = "present"  // it was there
	Mounted  Stored = "mounted"  // from another repository
	Copied   Stored = "copied"   // from another image
	Uploaded Stored = "uploaded" // from here
)

// Transfer is a way to a destination. Its methods may be called in parallel.
type Transfer struct {
	To destination.Store
	// From are images that blobs may be mounted from.
	From []*source.Content
	// Dir holds temporary files.
	Dir string
	// Parallel is how many blobs of an image are on their way at a time.
	Parallel int
	// Bars shows each blob; nil shows nothing.
	Bars *terminal.Bars
	// Note is told what somebody should know, from several goroutines.
	Note func(string)
}

// Find reports whether the destination has a blob, or could take it from one
// of the repositories.
func (t *Transfer) Find(ctx context.Context, desc ocispec.Descriptor, repositories []string) (Stored, bool, error) {
	there, err := t.To.Exists(ctx, desc)
	if err != nil || there {
		return Present, there, err
	}
	m, ok := t.To.(destination.Mounter)
	if !ok {
		return "", false, nil
	}
	for _, from := range repositories {
		mounted, err := m.Mount(ctx, desc, from)
		switch {
		case mounted:
			return Mounted, true, nil
		case ctx.Err() != nil:
			return "", false, err
		case err != nil: // mounting saves an upload, and that is all
			t.Note(fmt.Sprintf("%s is not mounted from %s: %v", desc.Digest, from, err))
		}
	}
	return "", false, nil
}

// Upload puts a blob that lies in a file, unless the destination can have it
// without.
func (t *Transfer) Upload(ctx context.Context, desc ocispec.Descriptor, f *os.File, bar *terminal.Bar) (Stored, error) {
	stored, ok, err := t.Find(ctx, desc, t.Repositories(nil))
	if err != nil || ok {
		return stored, err
	}
	return Uploaded, t.put(ctx, desc, f, bar)
}

func (t *Transfer) put(ctx context.Context, desc ocispec.Descriptor, f *os.File, bar *terminal.Bar) error {
	bar.Phase("uploading", desc.Size)
	content := &progressReader{SectionReader: io.NewSectionReader(f, 0, desc.Size), bar: bar}
	return t.To.Put(ctx, desc, content)
}

// Copy makes a blob of an image one of the destination.
func (t *Transfer) Copy(ctx context.Context, from *source.Content, desc ocispec.Descriptor, bar *terminal.Bar) (Stored, error) {
	stored, ok, err := t.Find(ctx, desc, t.Repositories(from))
	if err != nil || ok {
		return stored, err
	}
	b, err := from.Open(desc)
	if err != nil {
		return "", err
	}
	f, err := t.TempFile()
	if err != nil {
		return "", err
	}
	defer f.Close()
	bar.Phase("downloading", desc.Size)
	if err := Fetch(ctx, b, f, bar); err != nil {
		return "", fmt.Errorf("copying %s: %w", desc.Digest, err)
	}
	return Copied, t.put(ctx, desc, f, bar)
}

// Blobs makes blobs of an image blobs of the destination, and returns how each
// came there: not at all if it may not be distributed.
func (t *Transfer) Blobs(ctx context.Context, from *source.Content, blobs []ocispec.Descriptor) ([]Stored, error) {
	stored := make([]Stored, len(blobs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, t.Parallel))
	for i, d := range blobs {
		if images.IsNonDistributable(d.MediaType) {
			continue // whoever needs it fetches it elsewhere
		}
		bar := t.Bars.Add(Short(d.Digest))
		g.Go(func() (err error) {
			stored[i], err = t.Copy(ctx, from, d, bar)
			bar.Done(string(stored[i]))
			return err
		})
	}
	return stored, g.Wait()
}

// Tree makes a manifest or index of an image, with everything that it refers
// to, one of the destination, without a name. Of a manifest it returns how its
// blobs came there.
func (t *Transfer) Tree(ctx context.Context, from *source.Content, desc ocispec.Descriptor) ([]Stored, error) {
	n, err := from.Document(ctx, desc)
	if err != nil {
		return nil, err
	}
	for _, d := range n.Children {
		if _, err := t.Tree(ctx, from, d); err != nil {
			return nil, err
		}
	}
	stored, err := t.Blobs(ctx, from, n.Blobs())
	if err != nil {
		return nil, err
	}
	return stored, t.Document(ctx, n.Desc, n.Text)
}

// Document puts a manifest, index or config.
func (t *Transfer) Document(ctx context.Context, desc ocispec.Descriptor, text []byte) error {
	return t.To.Put(ctx, Plain(desc), bytes.NewReader(text))
}

// Repositories returns where a blob may be mounted from: the repository of an
// image that has it, if it is not nil, and those of From.
func (t *Transfer) Repositories(has *source.Content) []string {
	var all []string
	for _, from := range append([]*source.Content{has}, t.From...) {
		if r := Repository(from); r != "" && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// Repository returns the repository that an image is in, or "".
func Repository(from *source.Content) string {
	if from == nil || from.Kind != source.KindRegistry {
		return ""
	}
	named, err := reference.ParseNormalizedNamed(from.Name)
	if err != nil {
		return ""
	}
	return named.Name()
}

// TempFile returns a file that goes when it is closed, whatever becomes of this
// process.
func (t *Transfer) TempFile() (*os.File, error) {
	f, err := os.CreateTemp(t.Dir, "blob-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Plain returns a descriptor with what identifies content.
func Plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// Short is a digest for people.
func Short(d digest.Digest) string {
	s := d.Encoded()
	return s[:min(12, len(s))]
}
