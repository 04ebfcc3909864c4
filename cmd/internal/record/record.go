package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// recording is one run.
type recording struct {
	cfg       Config
	id        string // of the container, its snapshot and its files
	files     files
	snapshots snapshots.Snapshotter
	old       *image
	summary   Summary

	exited bool // the container
}

// Run records. When it returns, nothing temporary is left, and with an error there
// is no new image.
func Run(ctx context.Context, cfg Config) (*Summary, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	r := &recording{cfg: cfg, id: newID(time.Now()), snapshots: cfg.Client.SnapshotService(cfg.Snapshotter)}
	if _, err := cfg.Client.GetSnapshotterCapabilities(ctx, cfg.Snapshotter); err != nil {
		return nil, fmt.Errorf("looking for snapshotter %q: %w (it needs a [proxy_plugins.%s] section in containerd's configuration)",
			cfg.Snapshotter, err, cfg.Snapshotter)
	}
	// Should this program be killed, it goes by itself.
	life := 3*cfg.Time + collectTimeout + time.Hour
	ctx, done, err := cfg.Client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(life))
	if err != nil {
		return nil, fmt.Errorf("creating a lease: %w", err)
	}
	defer func() {
		clean, cancel := cleaning(ctx)
		defer cancel()
		_ = done(clean)
	}()
	if err := r.run(ctx); err != nil {
		return nil, fmt.Errorf("recording %s: %w", cfg.Old, err)
	}
	return &r.summary, nil
}

func (r *recording) run(ctx context.Context) (err error) {
	_, err = r.cfg.Client.ImageService().Get(ctx, r.cfg.New)
	if err == nil {
		return fmt.Errorf("there is an image %s already: %w", r.cfg.New, errdefs.ErrAlreadyExists)
	} else if !errdefs.IsNotFound(err) {
		return err
	}
	if r.old, err = openImage(ctx, r.cfg.Client, r.cfg.Old); err != nil {
		return err
	}
	if r.summary.Replaced = r.old.replaced; r.summary.Replaced {
		r.cfg.Note("%s has a trace already, which its copy will not have", r.cfg.Old)
	}
	if err := r.unpackOld(ctx); err != nil {
		return err
	}
	if r.files, err = makeFiles(r.cfg.Dir, r.id); err != nil {
		return fmt.Errorf("making a file for the trace: %w", err)
	}
	defer func() { err = errors.Join(err, r.files.remove()) }()
	contents, err := r.record(ctx)
	if err != nil {
		return err
	}
	layer, err := r.writeLayer(ctx, contents)
	if err != nil {
		return fmt.Errorf("making the trace layer: %w", err)
	}
	return r.name(ctx, layer)
}

// record records and returns what is to be in the trace layer. What is temporary
// but the files is gone when it returns.
func (r *recording) record(ctx context.Context) (c tracelayer.Contents, err error) {
	chain := r.old.chain()
	mounts, err := r.snapshots.Prepare(ctx, r.id, chain[len(chain)-1].String(), snapshots.WithLabels(map[string]string{
		labels.RecordTrace: "yes", labels.RecordTracePath: r.files.trace,
	}))
	if err != nil {
		return c, fmt.Errorf("preparing a snapshot: %w", err)
	}
	defer func() {
		clean, cancel := cleaning(ctx)
		defer cancel()
		err = errors.Join(err, r.snapshots.Remove(clean, r.id))
	}()
	if err := r.files.began(); err != nil {
		return c, err
	}
	defer func() {
		if err != nil {
			r.giveUp(ctx)
		}
	}()
	if err := r.read(ctx, mounts); err != nil {
		return c, err
	}
	if err := r.files.finish(); err != nil {
		return c, err
	}
	if err := r.files.wait(ctx); err != nil {
		return c, fmt.Errorf("waiting for the trace: %w", err)
	}
	return r.collect()
}

// giveUp waits for the end of a recording that nobody wants, so that nothing is
// written after the files are removed.
func (r *recording) giveUp(ctx context.Context) {
	clean, cancel := cleaning(ctx)
	defer cancel()
	if r.files.finish() == nil {
		_ = r.files.wait(clean)
	}
}

// read makes somebody read the image.
func (r *recording) read(ctx context.Context, mounts []mount.Mount) (err error) {
	if r.cfg.List != nil {
		return r.readFiles(ctx, mounts)
	}
	r.summary.Ended, err = r.observe(ctx)
	return err
}

// collect reads what was recorded.
func (r *recording) collect() (tracelayer.Contents, error) {
	var c tracelayer.Contents
	got, err := r.files.read()
	if err != nil {
		return c, err
	}
	if len(got.trace) == 0 {
		return c, errors.New("nothing was read of the image: there is nothing to record")
	}
	c.Slot = got.trace.Encode()
	r.summary.Records = len(got.trace)
	for _, rec := range got.trace {
		r.summary.Read += rec.Count
	}
	if r.cfg.List != nil {
		paths, err := r.cfg.list()
		if err != nil {
			return c, err
		}
		if c.Slot, err = tracelayer.EncodeList(paths); err != nil {
			return c, err
		}
		r.summary.Records, r.summary.Read = 0, 0
	}
	if got.plan == nil {
		r.cfg.Note("the snapshotter made no plan: replay will take more requests")
		return c, nil
	}
	if r.cfg.NoData {
		for i := range got.plan.Extents {
			got.plan.Extents[i].Stored = 0
		}
	}
	r.summary.Extents, r.summary.Planned = len(got.plan.Extents), got.plan.Size()
	c.DataSize = got.plan.DataSize()
	c.Plan, err = got.plan.Encode()
	return c, err
}

// writeLayer writes the trace layer into the content store.
func (r *recording) writeLayer(ctx context.Context, c tracelayer.Contents) (layer ocispec.Descriptor, err error) {
	if c.DataSize > 0 {
		data, err := r.files.data(c.DataSize)
		if err != nil {
			return layer, err
		}
		defer data.Close()
		c.Data = data
	}
	cs := r.cfg.Client.ContentStore()
	w, err := content.OpenWriter(ctx, cs, content.WithRef(r.id))
	if err != nil {
		return layer, err
	}
	defer func() {
		err = errors.Join(err, w.Close())
		if layer.Digest == "" { // an upload that is not finished stays
			clean, cancel := cleaning(ctx)
			defer cancel()
			_ = cs.Abort(clean, r.id)
		}
	}()
	// One message to containerd for each write would be slow.
	buffered := bufio.NewWriterSize(w, 1<<20)
	info, err := tracelayer.WriteLayer(buffered, c)
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return layer, err
	}
	uncompressed := content.WithLabels(map[string]string{"containerd.io/uncompressed": info.Digest.String()})
	if err := w.Commit(ctx, info.Size, info.Digest, uncompressed); err != nil && !errdefs.IsAlreadyExists(err) {
		return layer, err
	}
	r.summary.Layer, r.summary.Data = info.Size, c.DataSize
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: info.Digest, Size: info.Size,
		Annotations: labels.TraceBlob{Blob: info.Digest, BlobSize: info.Size, FSType: r.old.fsType(), Plan: info.Plan}.Annotations(),
	}, nil
}

// name makes the new image of a trace layer in the content store.
func (r *recording) name(ctx context.Context, layer ocispec.Descriptor) error {
	desc, added, err := r.create(ctx, layer)
	if err != nil {
		return err
	}
	// The snapshotter is not told the image's name: the layer is not in a
	// registry yet, so it must take the one that is here.
	below := added.DiffIDs[:len(added.DiffIDs)-1]
	err = r.unpack(ctx, unpacking{
		layer: layer, diffID: layer.Digest,
		chain:  identity.ChainID(slices.Clone(added.DiffIDs)),
		parent: identity.ChainID(slices.Clone(below)),
	})
	if err != nil {
		return fmt.Errorf("unpacking the trace layer: %w", err)
	}
	if _, err := r.cfg.Client.ImageService().Create(ctx, images.Image{Name: r.cfg.New, Target: desc}); err != nil {
		return fmt.Errorf("naming the image: %w", err)
	}
	r.summary.Name, r.summary.Target = r.cfg.New, desc.Digest
	return nil
}
