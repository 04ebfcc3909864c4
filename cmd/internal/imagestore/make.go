package imagestore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// cleanTimeout bounds what has to be done at the end whatever happens.
const cleanTimeout = 2 * time.Minute

// Cleaning returns a context for the removal of what is temporary, which goes on
// when ctx has ended.
func Cleaning(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
}

// Lease returns a context whose content and snapshots are kept from garbage
// collection until end is called. Then goes what no image refers to, before end
// returns. Should this program be killed, that is so after life.
func Lease(ctx context.Context, client *containerd.Client, life time.Duration) (held context.Context, end func() error, err error) {
	ls := client.LeasesService()
	l, err := ls.Create(ctx, leases.WithRandomID(), leases.WithExpiration(life))
	if err != nil {
		return nil, nil, fmt.Errorf("creating a lease: %w", err)
	}
	held = leases.WithLease(ctx, l.ID)
	return held, func() error {
		clean, cancel := Cleaning(ctx)
		defer cancel()
		if err := ls.Delete(clean, l, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("ending the lease: %w", err)
		}
		return nil
	}, nil
}

// Documents are what an image consists of beside its layers.
type Documents struct {
	// Name is the name of the image. One that there is already then stands for
	// this one.
	Name string
	// Manifest is encoded as it is, but for its Config, which is made.
	Manifest ocispec.Manifest
	// Config is the text of the config, ConfigType its media type.
	Config     []byte
	ConfigType string
	// Snapshots are chain IDs by snapshotter, to be kept as long as the image.
	Snapshots map[string]digest.Digest
	// Labels are added to the labels of manifest and config.
	Labels map[string]string
}

// Make writes config and manifest into the content store and gives the image its
// name. Layers need not be there.
func Make(ctx context.Context, client *containerd.Client, d Documents) (ocispec.Descriptor, error) {
	cs := client.ContentStore()
	keep := maps.Clone(d.Labels)
	if keep == nil {
		keep = map[string]string{}
	}
	for snapshotter, chain := range d.Snapshots {
		keep["containerd.io/gc.ref.snapshot."+snapshotter] = chain.String()
	}
	config := ocispec.Descriptor{MediaType: d.ConfigType, Digest: digest.FromBytes(d.Config), Size: int64(len(d.Config))}
	if err := put(ctx, cs, config, d.Config, keep); err != nil {
		return config, fmt.Errorf("writing the config: %w", err)
	}
	d.Manifest.Config = config
	text, err := Encode(d.Manifest)
	if err != nil {
		return config, fmt.Errorf("encoding the manifest: %w", err)
	}
	keep = map[string]string{"containerd.io/gc.ref.content.config": config.Digest.String()}
	for i, l := range d.Manifest.Layers {
		keep[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	maps.Copy(keep, d.Labels)
	desc := ocispec.Descriptor{MediaType: d.Manifest.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if err := put(ctx, cs, desc, text, keep); err != nil {
		return desc, fmt.Errorf("writing the manifest: %w", err)
	}
	return desc, name(ctx, client.ImageService(), images.Image{Name: d.Name, Target: desc})
}

// put writes a document. One that is there gets the labels, too.
func put(ctx context.Context, cs content.Store, desc ocispec.Descriptor, text []byte, labels map[string]string) error {
	ref := "document-" + desc.Digest.String()
	if err := content.WriteBlob(ctx, cs, ref, bytes.NewReader(text), desc, content.WithLabels(labels)); err != nil {
		return err
	}
	var fields []string
	for key := range labels {
		fields = append(fields, "labels."+key)
	}
	if len(fields) == 0 {
		return nil
	}
	_, err := cs.Update(ctx, content.Info{Digest: desc.Digest, Labels: labels}, fields...)
	return err
}

// name makes img what its name stands for.
func name(ctx context.Context, store images.Store, img images.Image) error {
	_, err := store.Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		_, err = store.Update(ctx, img, "target")
	}
	if err != nil {
		return fmt.Errorf("naming the image: %w", err)
	}
	return nil
}
