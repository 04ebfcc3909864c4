package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// tableType is the artifact type of the chunk tables of an image.
const tableType = "application/vnd.reprise.chunks.v1"

// PushTables stores the chunk tables of the layers beside the image, which is
// in the repository repo (without a tag, which would be moved), as an artifact
// that refers to it.
func (l Layout) PushTables(ctx context.Context, p Pusher, repo string) error {
	desc, m, err := l.Manifest()
	if err != nil {
		return err
	}
	artifact := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: tableType,
		Config:  ocispec.Descriptor{MediaType: ocispec.DescriptorEmptyJSON.MediaType, Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2},
		Subject: &ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size},
	}
	for _, d := range m.Layers {
		table, err := l.pushTable(ctx, p, repo, d)
		if err != nil {
			return fmt.Errorf("pushing the chunk table of layer %s: %w", d.Digest, err)
		}
		artifact.Layers = append(artifact.Layers, table)
	}
	if err := p.Push(ctx, repo, artifact.Config, bytes.NewReader([]byte("{}"))); err != nil {
		return err
	}
	text, err := json.Marshal(artifact)
	if err != nil {
		return err
	}
	to := ocispec.Descriptor{MediaType: artifact.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return p.Push(ctx, repo, to, bytes.NewReader(text))
}

func (l Layout) pushTable(ctx context.Context, p Pusher, repo string, layer ocispec.Descriptor) (ocispec.Descriptor, error) {
	f, err := blob.OpenFile(l.BlobPath(layer))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	table, root, _, err := backstore.BuildChunks(ctx, f)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: tableType, Digest: digest.FromBytes(table), Size: int64(len(table)), Annotations: map[string]string{
		labels.BlobDigest: layer.Digest.String(), labels.BlobSize: strconv.FormatInt(layer.Size, 10), labels.ChunksRoot: root.String(),
	}}
	return d, p.Push(ctx, repo, d, bytes.NewReader(table))
}
