package convert

import (
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// Version is that of what a layer's blob is for equal archives and options. It
// is raised when that changes, so that those who remember converted layers don't
// mix old and new ones. TestPinned notices when it has to be.
const Version = 1

// DefaultVirtualSize is the size in bytes of the device that upstream's tools
// make, too.
const DefaultVirtualSize = 64 << 30

// MaxVirtualSize is up to where overlaybd's reader can read a device, in bytes.
const MaxVirtualSize = 2 << 40

// Options say how layers are written. Those that decide what is written are
// Compression, but for its Workers, and VirtualSize.
type Options struct {
	// Compression is that of the layers' ZFiles.
	Compression zfile.Options
	// VirtualSize is the size of the device in bytes, which bounds what an
	// image can hold; 0 is DefaultVirtualSize.
	VirtualSize int64
	// Dir is where temporary files are made; "" is the system's folder.
	Dir string
}

// Validate reports values that make no sense.
func (o Options) Validate() error {
	switch {
	case o.VirtualSize < 0 || o.VirtualSize%erofs.BlockSize != 0:
		return fmt.Errorf("virtual size of %d bytes is not a multiple of %d", o.VirtualSize, erofs.BlockSize)
	case o.VirtualSize > MaxVirtualSize:
		return fmt.Errorf("virtual size of %d bytes is above %d, up to which overlaybd's reader works", o.VirtualSize, int64(MaxVirtualSize))
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.VirtualSize == 0 {
		o.VirtualSize = DefaultVirtualSize
	}
	return o
}

// ID says which layer of which images is converted: the chain IDs, in the sense
// of the OCI image specification, of the original's layers up to it and up to
// the one below. They become UUIDs, as overlaybd's converter makes them.
type ID struct {
	ChainID, ParentChainID digest.Digest
}

// uuid returns the first 32 digits of a digest in the form of a UUID, or "".
func uuid(d digest.Digest) string {
	if d == "" {
		return ""
	}
	h := d.Encoded()
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
}

// check refuses digests that can't become UUIDs.
func (id ID) check() error {
	for _, d := range []digest.Digest{id.ChainID, id.ParentChainID} {
		if d == "" {
			continue
		}
		if err := d.Validate(); err != nil {
			return fmt.Errorf("chain ID %q: %w", d, err)
		}
	}
	return nil
}
