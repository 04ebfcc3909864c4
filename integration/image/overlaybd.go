package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// Overlaybd says how layers are stored.
type Overlaybd struct {
	// FSType is the file system in the disk image.
	FSType FSType
	// Compression is that of the ZFile; zero is LZ4 in blocks of 4 KiB.
	Compression zfile.Options
}

// annotations prefix, see the labels of accelerated-container-image.
const annotations = "containerd.io/snapshot/overlaybd/"

// Layer makes an overlaybd layer with what the disk image at disk holds more
// than the one at base; without base, all of it.
func (l Layout) Layer(ctx context.Context, o Overlaybd, disk, base string) (Layer, error) {
	desc, err := l.Blob(ocispec.MediaTypeImageLayer, func(f *os.File) error { return o.write(ctx, f, disk, base) })
	if err != nil {
		return Layer{}, fmt.Errorf("making a layer of %s: %w", disk, err)
	}
	desc.Annotations = map[string]string{
		annotations + "blob-digest":  desc.Digest.String(),
		annotations + "blob-size":    strconv.FormatInt(desc.Size, 10),
		annotations + "blob-fs-type": string(o.FSType),
		annotations + "version":      "0.1.0",
	}
	// The blob is a tar archive that is not compressed as a whole.
	return Layer{desc, desc.Digest}, nil
}

func (o Overlaybd) write(ctx context.Context, f *os.File, disk, base string) error {
	var opts lsmt.DiskOptions
	d, err := lsmt.OpenFile(disk)
	if err != nil {
		return err
	}
	defer d.Close()
	if base != "" {
		b, err := lsmt.OpenFile(base)
		if err != nil {
			return err
		}
		defer b.Close()
		opts.Base = b
	}
	archive, err := tarblob.NewUnsizedWriter(f)
	if err != nil {
		return err
	}
	compression := o.Compression
	compression.FinalHeader = true
	z, err := zfile.NewWriter(archive, compression)
	if err != nil {
		return err
	}
	err = lsmt.CommitDisk(ctx, z, d, opts)
	if err == nil {
		err = z.Close()
	}
	return errors.Join(err, archive.Close())
}
