package differ_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// put stores a blob.
func (w *world) put(data []byte) ocispec.Descriptor {
	w.t.Helper()
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(w.ctx, w.store, desc.Digest.String(), bytes.NewReader(data), desc); err != nil {
		w.t.Fatal(err)
	}
	return desc
}

// TestApply has a layer placed, as it is.
func TestApply(t *testing.T) {
	w := newWorld(t)
	w.snaps.device = []byte("written")
	made, err := w.differ().Compare(w.ctx, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, _ := w.blob(made)
	// As the manifest of a client may have it.
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: made.Digest, Size: made.Size}
	got, err := w.differ().Apply(w.ctx, desc, nil)
	if err != nil || got.Digest != desc.Digest || got.Size != desc.Size || got.MediaType != desc.MediaType {
		t.Errorf("Apply = %+v, %v, want %+v", got, err, desc)
	}
	if !bytes.Equal(w.snaps.placed, blob) {
		t.Errorf("placed are %d bytes, which are not the %d of the blob", len(w.snaps.placed), len(blob))
	}
	for _, fail := range []error{errors.New("boom"), notImplemented} {
		w.snaps.fail = fail
		if _, err := w.differ().Apply(w.ctx, desc, nil); !errors.Is(err, fail) {
			t.Errorf("Apply = %v, want %v", err, fail)
		}
	}
}

// TestApplyOthers leaves what is no overlaybd layer to the next differ.
func TestApplyOthers(t *testing.T) {
	w := newWorld(t)
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: "overlaybd.commit", Mode: 0o644, Size: 600}), write(tw, make([]byte, 600)), tw.Close()); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"gzip":             {0x1f, 0x8b, 8, 0, 1, 2, 3},
		"tar":              plain.Bytes(),
		"begin of a tar":   plain.Bytes()[:512],
		"layer, no tar":    append([]byte("LSMT\x00\x01\x02\x00"), make([]byte, 8192)...),
		"one byte":         {0},
		"zeros and zeros ": make([]byte, 1<<16),
	} {
		if _, err := w.differ().Apply(w.ctx, w.put(data), nil); !errdefs.IsNotImplemented(err) {
			t.Errorf("Apply of %s = %v", name, err)
		}
	}
	missing := ocispec.Descriptor{Digest: digest.FromString("missing"), Size: 7}
	if _, err := w.differ().Apply(w.ctx, missing, nil); !errdefs.IsNotFound(err) {
		t.Errorf("Apply of what is not there = %v", err)
	}
	if w.snaps.placed != nil {
		t.Errorf("placed are %d bytes", len(w.snaps.placed))
	}
}

// write writes to a tar archive.
func write(tw *tar.Writer, p []byte) error {
	_, err := tw.Write(p)
	return err
}
