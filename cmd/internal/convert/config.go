package convert

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"

	layerconvert "github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// Limits of what a source layer may decompress to.
const (
	// DefaultMaxLayerSize is in bytes.
	DefaultMaxLayerSize = 64 << 30
	// DefaultMaxRatio is how many bytes each compressed byte may become.
	// gzip can't reach more than 1032.
	DefaultMaxRatio = 1000
	// DefaultRatioFrom is in bytes: smaller layers of zeros are honest.
	DefaultRatioFrom = 1 << 30
)

// How layers are compressed unless Config says otherwise.
const (
	DefaultAlgorithm = zfile.ZSTD
	DefaultBlockSize = 4096 // bytes
)

// DefaultConcurrency is how many layers have temporary files at a time: one that
// is read, and two that are compressed or stored meanwhile.
const DefaultConcurrency = 3

// Limits bound what a layer of the source may decompress to.
type Limits struct {
	// LayerSize is the largest uncompressed layer, in bytes.
	LayerSize int64
	// Ratio is the largest ratio of uncompressed to compressed bytes; a
	// negative one is no limit.
	Ratio int64
	// RatioFrom is the uncompressed size in bytes from which on Ratio counts.
	RatioFrom int64
}

// Config says what is converted, how, and to where.
type Config struct {
	Source      *source.Content
	Destination destination.Destination
	// Platform selects from a multi-platform image, for example
	// "linux/arm64". Empty: all.
	Platform string
	// Referrer keeps the source: the destination names a copy of it, and
	// the converted manifests refer to its manifests.
	Referrer bool

	// Compression is the algorithm and block size of the layers; zeros are
	// DefaultAlgorithm and DefaultBlockSize.
	Compression zfile.Options
	// VirtualSize is the size of the device in bytes; 0 is the converter's
	// default.
	VirtualSize int64

	// Known are images whose layers need not be converted again.
	Known []*source.Content
	// Cache knows which layers were converted before; nil knows nothing.
	Cache *Cache

	// Workers is how many processors are used; 0 is all that Go may use.
	Workers int
	// Concurrency is how many layers have temporary files at a time, the
	// one that is read included: with 1, one layer is stored before the
	// next one is read. 0 is DefaultConcurrency. Of a source that is copied
	// it is how many blobs are, for each image.
	Concurrency int
	Limits      Limits
	// TempDir holds the temporary directory; "" is the system's.
	TempDir string

	// Bars shows each layer; nil shows nothing.
	Bars *terminal.Bars
	// Note is told what somebody should know, one thing at a time; nil is
	// nobody.
	Note func(string)
	// Stored is told about each layer that is finished, from several
	// goroutines; nil is nobody.
	Stored func(*Layer)
}

// Validate reports values that make no sense.
func (c Config) Validate() error {
	b := c.Compression.BlockSize
	switch {
	case c.Source == nil || c.Destination == nil:
		return errors.New("converting needs a source and a destination")
	case b != 0 && (b < 4096 || b > 32768 || b&(b-1) != 0):
		// Larger and smaller ones exist, but not every reader can
		// read everything that is stored in them.
		return fmt.Errorf("block size %d is not one of 4096, 8192, 16384 and 32768", b)
	case c.Workers < 0 || c.Concurrency < 0:
		return errors.New("workers and concurrency must not be negative")
	case c.Limits.LayerSize < 0 || c.Limits.RatioFrom < 0:
		return errors.New("limits of layers must not be negative")
	}
	return c.layerOptions().Validate()
}

// layerOptions returns the options of the converter of layers.
func (c Config) layerOptions() layerconvert.Options {
	return layerconvert.Options{Compression: c.Compression, VirtualSize: c.VirtualSize}
}

func (c Config) withDefaults() Config {
	if c.Compression.Algorithm == 0 {
		c.Compression.Algorithm = DefaultAlgorithm
	}
	if c.Compression.BlockSize == 0 {
		c.Compression.BlockSize = DefaultBlockSize
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.Limits.LayerSize == 0 {
		c.Limits.LayerSize = DefaultMaxLayerSize
	}
	if c.Limits.RatioFrom == 0 {
		c.Limits.RatioFrom = DefaultRatioFrom
	}
	switch {
	case c.Limits.Ratio == 0:
		c.Limits.Ratio = DefaultMaxRatio
	case c.Limits.Ratio < 0:
		c.Limits.Ratio = math.MaxInt64
	}
	if c.Note == nil {
		c.Note = func(string) {}
	}
	var one sync.Mutex
	note := c.Note
	c.Note = func(s string) {
		one.Lock()
		defer one.Unlock()
		note(s)
	}
	if c.Stored == nil {
		c.Stored = func(*Layer) {}
	}
	return c
}
