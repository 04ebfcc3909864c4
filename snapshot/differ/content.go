package differ

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/snapshot"
)

// write copies the blob desc from r to the content store, as containerd's own
// differ does: with the labels that are asked for and its diff ID, which is its
// digest.
func write(ctx context.Context, store content.Store, desc ocispec.Descriptor, r io.Reader, config diff.Config) error {
	ref := config.Reference
	if ref == "" {
		ref = "reprise-diff-" + rand.Text()
	}
	want := maps.Clone(config.Labels)
	if want == nil {
		want = make(map[string]string)
	}
	want[labels.LabelUncompressed] = desc.Digest.String()
	err := content.WriteBlob(ctx, store, ref, r, desc, content.WithLabels(want))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("storing layer %s: %w", desc.Digest, err)
	}
	return label(ctx, store, desc, want)
}

// label gives the blob desc, which may have been there before, the labels want.
func label(ctx context.Context, store content.Store, desc ocispec.Descriptor, want map[string]string) error {
	info := content.Info{Digest: desc.Digest, Labels: want}
	var fields []string
	for key := range want {
		fields = append(fields, "labels."+key)
	}
	if _, err := store.Update(ctx, info, fields...); err != nil {
		return fmt.Errorf("labelling layer %s: %w", desc.Digest, err)
	}
	return nil
}

// isLayer reports whether r begins like an overlaybd layer in a tar archive.
func isLayer(r content.ReaderAt) bool {
	head := make([]byte, min(layerHead, r.Size()))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	_, archive, err := tarblob.Locate(head, r.Size())
	return archive && err == nil && snapshot.IsLayer(head)
}

// layerHead is how much of a blob is looked at: headers, and the magic number
// behind them.
const layerHead = tarblob.HeadSize + 512
