package backstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// counted counts reads and the bytes they ask for.
type counted struct {
	blob.Blob
	mu    sync.Mutex
	reads []string
	bytes int
}

func (c *counted) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.reads = append(c.reads, fmt.Sprint(off, "+", len(p)))
	c.bytes += len(p)
	c.mu.Unlock()
	return c.Blob.ReadAt(ctx, p, off)
}

// TestOpenCost opens layers and counts requests and bytes: a pull opens every
// layer of an image.
func TestOpenCost(t *testing.T) {
	for _, c := range []struct {
		file         string
		reads, bytes int
	}{
		{"small-chain3/L0.lz4-4k.tar", 2, 6000},          // start; jump table with what is before it
		{"small-chain3/L0.lz4-4k.registry.tar", 2, 6000}, // more zeros at the end don't matter
		{"small-chain3/L0.zstd-4k.zfile", 2, 6000},
		{"small-chain3/L1.lz4-4k-trailer.zfile", 2, 6000}, // trailer with the jump table before it
		{"small-chain3/L0.lz4-16k-trailer.tar", 4, 40000}, // blocks of 16 KiB hold more than the LSMT header
		{"small-chain3/L0.raw.lsmt", 4, 20000},
	} {
		b := &counted{Blob: blobtest.Bytes(readFile(t, vectors, c.file))}
		if _, err := backstore.OpenLayer(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if len(b.reads) > c.reads || b.bytes > c.bytes {
			t.Errorf("%s: %d bytes in reads %q, want %d bytes in %d reads", c.file, b.bytes, b.reads, c.bytes, c.reads)
		}
	}
}

// TestNoWindowAfterOpen: once open, a layer reads exactly what it needs.
func TestNoWindowAfterOpen(t *testing.T) {
	b := &counted{Blob: blobtest.Bytes(readFile(t, vectors, "small-chain3/L0.lz4-4k.tar"))}
	image, err := backstore.Open(t.Context(), []blob.ReaderAt{b})
	if err != nil {
		t.Fatal(err)
	}
	b.reads, b.bytes = nil, 0
	if _, err := image.ReadAt(t.Context(), make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if len(b.reads) != 1 || b.bytes > 4096+100 {
		t.Errorf("a read of 4096 bytes reads %q", b.reads)
	}
}

// TestErrorsNameTheLayer: of many layers the broken one is named, by number and
// digest.
func TestErrorsNameTheLayer(t *testing.T) {
	good := blobtest.Bytes(readFile(t, vectors, "small-chain3/L1.lz4-4k.tar"))
	raw := readFile(t, vectors, "small-chain3/L1.lz4-4k.tar")
	cut := blobtest.Bytes(raw[:len(raw)/2])
	_, err := backstore.Open(t.Context(), []blob.ReaderAt{good, good, cut, good})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("layer 2 (%s)", cut.Descriptor().Digest)) {
		t.Errorf("error %v", err)
	}
	other := blobtest.Bytes([]byte(strings.Repeat("not a layer ", 1000)))
	if _, err := backstore.Open(t.Context(), []blob.ReaderAt{good, other}); !errors.Is(err, lsmt.ErrFormat) {
		t.Errorf("error %v", err)
	}
	// A block that is damaged after opening.
	image, err := backstore.Open(t.Context(), []blob.ReaderAt{good})
	if err != nil {
		t.Fatal(err)
	}
	if image.Local() {
		t.Error("a blob that knows nothing of presence is taken as local")
	}
	damaged := blobtest.Bytes(corruptFiles(t)["lz4-crc-bitflip-block5.zfile"])
	if image, err = backstore.Open(t.Context(), []blob.ReaderAt{damaged}); err != nil {
		t.Fatal(err)
	}
	_, err = image.ReadAt(t.Context(), make([]byte, image.Size()), 0)
	var d *zfile.Damage
	if !errors.As(err, &d) || d.Blob != damaged.Descriptor().Digest.String() || d.Block != 5 || !strings.Contains(err.Error(), "layer 0") {
		t.Errorf("error %v", err)
	}
}

// TestLimits: the number of layers is limited, and there must be one.
func TestLimits(t *testing.T) {
	layer := vector(t, "edge/empty.raw.lsmt")
	if _, err := backstore.Open(t.Context(), slices.Repeat([]blob.ReaderAt{layer}, 256)); err == nil {
		t.Error("opened 256 layers")
	}
	if _, err := backstore.Open(t.Context(), slices.Repeat([]blob.ReaderAt{layer}, 255)); err != nil {
		t.Error(err)
	}
	if _, err := backstore.Open(t.Context(), nil); err == nil {
		t.Error("opened an image without layers")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := blobtest.Bytes(readFile(t, vectors, "edge/empty.raw.lsmt"))
	if _, err := backstore.Open(ctx, []blob.ReaderAt{b}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestWriteLayer writes a layer in every shape and reads it back.
func TestWriteLayer(t *testing.T) {
	disk := readGzip(t, vectors, "small-chain3/expected.raw.gz")
	for _, opts := range []zfile.Options{{}, {Algorithm: zfile.ZSTD, BlockSize: 32768}} {
		var f target
		if err := backstore.WriteLayer(&f, opts, func(w io.Writer) error {
			return lsmt.CommitDisk(t.Context(), w, memory(disk), lsmt.DiskOptions{})
		}); err != nil {
			t.Fatal(err)
		}
		b := &counted{Blob: blobtest.Bytes(f.Bytes())}
		image, err := backstore.Open(t.Context(), []blob.ReaderAt{b})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(readAll(t, image), disk) {
			t.Error("the disk reads back differently")
		}
	}
	broken := errors.New("broken")
	if err := backstore.WriteLayer(&target{}, zfile.Options{}, func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
