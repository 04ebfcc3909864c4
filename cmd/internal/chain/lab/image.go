package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Image is one layer with a chunk table and the recorded start of it.
type Image struct {
	// Blobs are all blobs, by digest.
	Blobs map[string][]byte
	// Layer is the layer, of bytes that do not compress.
	Layer ocispec.Descriptor
	// Data is the layer's blob.
	Data []byte
	// Plan is what the start reads, and Trace the layer that it is in.
	Plan  *tracelayer.Plan
	Trace backstore.TraceLayer
}

// NewImage returns an image whose layer has size bytes, of which the start reads
// the table and a part in some order: extents of 4 to 64 KiB.
func NewImage(size int64, part float64) (*Image, error) {
	data, ref, err := layer(size)
	if err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	i := &Image{
		Data: data,
		Layer: ocispec.Descriptor{
			Digest: digest.FromBytes(data), Size: int64(len(data)), Annotations: ref,
		},
	}
	if err := i.record(size, part); err != nil {
		return nil, fmt.Errorf("making a trace layer: %w", err)
	}
	return i, nil
}

// layer returns a layer blob with a chunk table and the annotations that say so.
func layer(size int64) ([]byte, map[string]string, error) {
	f, err := os.CreateTemp("", "replaybench-")
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	payload := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(payload)
	w := tar.NewWriter(f)
	err = w.WriteHeader(&tar.Header{Name: backstore.LayerFile, Mode: 0o644, Size: size, Typeflag: tar.TypeReg})
	if err == nil {
		_, err = w.Write(payload)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	ref, _, _, err := backstore.AppendChunks(context.Background(), f, st.Size())
	if err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(f.Name())
	return data, labels.WithChunks(ref), err
}

// record makes the plan: the table first, then extents of whole leaves.
func (i *Image) record(size int64, part float64) error {
	const leaf, header = 4 << 10, 512
	ref, err := labels.Chunks(i.Layer.Annotations)
	if err != nil {
		return err
	}
	p := &tracelayer.Plan{Layers: []tracelayer.PlanLayer{{Digest: i.Layer.Digest, Size: i.Layer.Size}}}
	var data bytes.Buffer
	add := func(off, n int64) {
		b := i.Data[off : off+n]
		p.Extents = append(p.Extents, tracelayer.Extent{Off: off, Size: n, Sum: sha256.Sum256(b), Stored: n})
		data.Write(b)
	}
	for off := ref.Offset; off < ref.Offset+ref.Size; off += 1 << 20 {
		add(off, min(1<<20, ref.Offset+ref.Size-off))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var extents [][2]int64
	for off := int64(0); off < size; {
		n := min(leaf*(1+rng.Int64N(16)), size-off)
		if rng.Float64() < part {
			extents = append(extents, [2]int64{header + off, n})
		}
		off += n
	}
	rng.Shuffle(len(extents), func(a, b int) { extents[a], extents[b] = extents[b], extents[a] })
	for _, e := range extents {
		add(e[0], e[1])
	}
	plan, err := p.Encode()
	if err != nil {
		return err
	}
	var blob bytes.Buffer
	info, err := tracelayer.WriteLayer(&blob, tracelayer.Contents{
		Slot: tracelayer.Trace{}.Encode(), Plan: plan, Data: &data, DataSize: p.DataSize(),
	})
	if err != nil {
		return err
	}
	i.Plan = p
	i.Trace = backstore.TraceLayer{Layer: backstore.Layer{Digest: info.Digest, Size: info.Size}, Plan: info.Plan}
	i.Blobs = map[string][]byte{i.Layer.Digest.String(): i.Data, info.Digest.String(): blob.Bytes()}
	return nil
}
