// Package inspect describes an image: its layers, how each is wrapped and
// compressed, the merged index and the file system. It reads headers, jump
// tables, indexes and a superblock, which is a small part of any real image.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
)

// Report describes an image. All sizes are in bytes.
type Report struct {
	Name     string        `json:"name"`
	Kind     source.Kind   `json:"kind"`
	Manifest digest.Digest `json:"manifest,omitempty"`
	Device   Device        `json:"device"`
	Layers   []Layer       `json:"layers"` // bottom first
	Trace    *Trace        `json:"trace,omitempty"`
	// Stale are trace layers below other layers, which nobody replays.
	Stale []Blob `json:"stale_traces,omitempty"`
	// Attached are traces that refer to the image; AttachedError says why
	// they could not be listed.
	Attached      []Attached `json:"attached_traces,omitempty"`
	AttachedError string     `json:"attached_traces_error,omitempty"`
	// Stored and Stream are the sums over the layers: what the registry
	// holds, and that uncompressed.
	Stored int64 `json:"stored_bytes"`
	Stream int64 `json:"stream_bytes"`
	Cost   Cost  `json:"cost"`
}

// Device describes the merged disk.
type Device struct {
	Size       int64  `json:"size"`
	FileSystem string `json:"file_system"` // "" if unknown
	// FileSystemSize is what the superblock says.
	FileSystemSize int64 `json:"file_system_size,omitempty"`
	// Claimed is the type that the image's annotations name.
	Claimed  string `json:"file_system_claimed,omitempty"`
	Segments int    `json:"segments"`
	Mapped   int64  `json:"mapped_bytes"` // stored in a layer
	Zeroed   int64  `json:"zeroed_bytes"` // declared to be zeros by a layer
	Holes    int64  `json:"hole_bytes"`   // never written
	Index    int64  `json:"index_memory_bytes"`
}

// Blob describes a blob as the manifest does.
type Blob struct {
	Digest      digest.Digest     `json:"digest,omitempty"`
	MediaType   string            `json:"media_type,omitempty"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Layer describes one layer.
type Layer struct {
	Blob
	// Name is the digest, or the path of a bare file.
	Name string `json:"name"`
	// Wrapping is "pax", "ustar" or "none".
	Wrapping string `json:"wrapping"`
	ZFile    *ZFile `json:"zfile,omitempty"` // nil: not compressed
	LSMT     LSMT   `json:"lsmt"`
	// Chunks is the chunk table in the blob, nil if there is none.
	Chunks *Chunks `json:"chunks,omitempty"`
	// Visible is what of the layer shows in the merged disk.
	Visible Visible `json:"visible"`
}

// ZFile describes how a layer is compressed.
type ZFile struct {
	Algorithm string `json:"algorithm"`
	BlockSize int    `json:"block_size"`
	Blocks    int64  `json:"blocks"`
	Checksums bool   `json:"checksums"`
	// Form tells where the final values are: "header" or "trailer".
	Form         string `json:"form"`
	Compressed   int64  `json:"compressed_bytes"`
	Uncompressed int64  `json:"uncompressed_bytes"`
}

// LSMT describes the layer format proper.
type LSMT struct {
	Kind        string `json:"kind"`
	UUID        string `json:"uuid"`
	Parent      string `json:"parent_uuid"`
	Tag         string `json:"tag,omitempty"`
	VirtualSize int64  `json:"virtual_size"`
	Segments    int    `json:"segments"`
	Data        int64  `json:"data_bytes"`
	Zeroed      int64  `json:"zeroed_bytes"`
}

// Visible is what the merged disk takes from a layer.
type Visible struct {
	Segments int   `json:"segments"`
	Mapped   int64 `json:"mapped_bytes"`
	Zeroed   int64 `json:"zeroed_bytes"`
}

// Cost is what the inspection read, but for lists of referrers.
type Cost struct {
	Bytes    int64 `json:"bytes"`
	Requests int64 `json:"requests"`
}

// meter counts the reads of blobs.
type meter struct{ bytes, requests atomic.Int64 }

// ObserveRead implements blob.Observer.
func (m *meter) ObserveRead(n int, _ time.Duration, _ error, _ blob.Priority) {
	m.bytes.Add(int64(n))
	m.requests.Add(1)
}

// parallelOpens is how many layers are opened at once.
const parallelOpens = 32

// Image describes img.
func Image(ctx context.Context, img *source.Image) (*Report, error) {
	var m meter
	parts := make([]backstore.Description, len(img.Layers))
	tables := make([]*Chunks, len(img.Layers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelOpens)
	for i, b := range img.Layers {
		g.Go(func() (err error) {
			b := blob.Observe(b, &m)
			parts[i], err = backstore.Describe(gctx, b)
			if err == nil {
				tables[i], err = describeChunks(gctx, b, parts[i])
			}
			if err != nil {
				err = fmt.Errorf("layer %d (%s): %w (reprise check tells what else is wrong)", i, blob.Name(b), err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r := &Report{Name: img.Name, Kind: img.Kind, Manifest: img.Manifest.Digest}
	stack := make([]*lsmt.Layer, len(parts))
	for i, d := range parts {
		stack[i] = d.Layer
		r.Layers = append(r.Layers, describe(img.Layers[i], d))
		r.Layers[i].Chunks = tables[i]
		r.Stored += img.Layers[i].Size()
		r.Stream += d.Layer.Size()
	}
	disk, err := lsmt.Stack(stack)
	if err != nil {
		return nil, err
	}
	if r.Device, err = describeDevice(ctx, disk); err != nil {
		return nil, err
	}
	r.Device.Claimed = img.FSType
	for i, s := range disk.Layers() {
		r.Layers[i].Visible = Visible{s.Segments, s.Mapped, s.Zeroed}
	}
	if err := r.traces(ctx, img, &m); err != nil {
		return nil, err
	}
	r.Cost = Cost{m.bytes.Load() + img.MetadataBytes, m.requests.Load()}
	return r, nil
}

func describeBlob(b blob.Blob) Blob {
	d := b.Descriptor()
	return Blob{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Annotations: d.Annotations}
}

func describe(b blob.Blob, d backstore.Description) Layer {
	l := Layer{Blob: describeBlob(b), Name: blob.Name(b), Wrapping: "none"}
	switch {
	case d.Tar && d.Payload.Offset > 512:
		l.Wrapping = "pax"
	case d.Tar:
		l.Wrapping = "ustar"
	}
	if z := d.ZFile; z != nil {
		l.ZFile = &ZFile{
			Algorithm: z.Algorithm().String(), BlockSize: z.BlockSize(), Blocks: z.Blocks(),
			Checksums: z.Verified(), Form: "trailer", Compressed: d.Payload.Size, Uncompressed: z.Size(),
		}
		if d.FinalHeader {
			l.ZFile.Form = "header"
		}
	}
	id := d.Layer.Identity()
	l.LSMT = LSMT{
		Kind: d.Layer.Kind(), UUID: id.UUID, Parent: id.Parent, Tag: id.Tag,
		VirtualSize: id.VirtualSize, Segments: d.Layer.Len(),
	}
	for s := range d.Layer.Segments() {
		if s.Zeroed {
			l.LSMT.Zeroed += s.Length * lsmt.SectorSize
		} else {
			l.LSMT.Data += s.Length * lsmt.SectorSize
		}
	}
	return l
}

func describeDevice(ctx context.Context, disk *lsmt.Image) (Device, error) {
	d := Device{Size: disk.Size(), Segments: disk.Len(), Index: disk.IndexBytes()}
	covered := int64(0)
	for s := range disk.Segments() {
		n := s.Length * lsmt.SectorSize
		covered += n
		if s.Zeroed {
			d.Zeroed += n
		} else {
			d.Mapped += n
		}
	}
	d.Holes = max(d.Size-covered, 0)
	var err error
	d.FileSystem, err = fusedev.FSType(ctx, disk)
	if errors.Is(err, fusedev.ErrUnknownFileSystem) {
		return d, nil
	}
	if err == nil {
		d.FileSystemSize, err = fileSystemSize(ctx, disk, d.FileSystem)
	}
	return d, err
}
