package obdconv

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// Defaults of Config.
const (
	DefaultFSType      = "ext4"
	DefaultVirtualSize = 64 // GB
	DefaultAlgorithm   = zfile.ZSTD
	DefaultBlockSize   = 4096 // bytes
)

// Config says what is converted and how.
type Config struct {
	// Client is of containerd. The namespace is that of the context.
	Client *containerd.Client
	// Source is the image, which must be here with its content, Target the name
	// of what is made of it.
	Source, Target string
	// Snapshotter is containerd's name of the one that has the devices.
	Snapshotter string
	// FSType is "type[;mount options[;mkfs options]]", with the types ext4 and
	// xfs. A part that is there and empty means none, one that is not there the
	// default. Empty is DefaultFSType.
	FSType string
	// VirtualSize is the size of the device in GB; 0 is DefaultVirtualSize.
	VirtualSize int
	// Compression is the algorithm and block size of the layers; zeros are
	// DefaultAlgorithm and DefaultBlockSize.
	Compression zfile.Options
	// TempDir holds blobs until they are in containerd's store; "" is the
	// system's directory.
	TempDir string
	// Bars shows each layer; nil shows nothing.
	Bars *terminal.Bars
	// Note is told what somebody should know, from several goroutines; nil is
	// nobody.
	Note func(string)
}

// Validate reports what makes no sense.
func (c Config) Validate() error {
	b := c.Compression.BlockSize
	switch {
	case c.Client == nil:
		return errors.New("converting needs a containerd")
	case c.Source == "" || c.Target == "":
		return errors.New("converting needs an image and a name for what is made of it")
	case c.Snapshotter == "":
		return errors.New("no snapshotter is named")
	case c.VirtualSize < 0:
		return fmt.Errorf("a device of %d GB", c.VirtualSize)
	case b != 0 && (b < 4096 || b > 32768 || b&(b-1) != 0):
		// Larger ones exist, but overlaybd's own reader can't read
		// everything that is stored in them.
		return fmt.Errorf("block size %d is not one of 4096, 8192, 16384 and 32768", b)
	}
	if _, err := reference.ParseNormalizedNamed(c.Target); err != nil {
		return fmt.Errorf("name %q of the converted image: %w", c.Target, err)
	}
	switch name := c.fsName(); name {
	case "ext4", "xfs":
	case "erofs":
		return errors.New("erofs can't be written by the kernel: reprise convert makes it")
	default:
		return fmt.Errorf("file system %q: layers can be of ext4 and xfs", name)
	}
	return nil
}

// fsName returns the bare type of the file system.
func (c Config) fsName() string {
	name, _, _ := strings.Cut(c.withDefaults().FSType, ";")
	return name
}

func (c Config) withDefaults() Config {
	if c.FSType == "" {
		c.FSType = DefaultFSType
	}
	if c.VirtualSize == 0 {
		c.VirtualSize = DefaultVirtualSize
	}
	if c.Compression.Algorithm == 0 {
		c.Compression.Algorithm = DefaultAlgorithm
	}
	if c.Compression.BlockSize == 0 {
		c.Compression.BlockSize = DefaultBlockSize
	}
	if c.Compression.Workers == 0 {
		c.Compression.Workers = max(1, runtime.GOMAXPROCS(0)/maxWriters)
	}
	if c.TempDir == "" {
		c.TempDir = os.TempDir()
	}
	if c.Note == nil {
		c.Note = func(string) {}
	}
	return c
}

// Report is what a conversion made.
type Report struct {
	Name   string
	Target digest.Digest
	Layers []Layer // bottom first
	// Dropped are trace layers of the source.
	Dropped []digest.Digest
}

// Layer is what became of a layer.
type Layer struct {
	Source     digest.Digest
	SourceSize int64 // bytes of the blob
	Digest     digest.Digest
	Size       int64 // bytes of the blob
	// Kept says that it was an overlaybd layer already.
	Kept bool
}
