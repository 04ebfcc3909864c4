package download_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/download"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

const ref = "registry.example/app:1"

// site stands for attached images and their registry; both have tests of their
// own, and package chain has one with all of it. Directories and files are real.
type site struct {
	t    *testing.T
	root string

	mu        sync.Mutex
	images    map[string]backstore.Image
	changed   chan struct{}
	blobs     map[digest.Digest]*blobtest.Faulty
	discarded map[digest.Digest]bool
	busyUntil time.Time
	events    []string
	useErr    error
	blink     string // an image that the next look at them does not find
}

func newSite(t *testing.T) *site {
	return &site{
		t: t, root: t.TempDir(), images: map[string]backstore.Image{}, changed: make(chan struct{}),
		blobs: map[digest.Digest]*blobtest.Faulty{}, discarded: map[digest.Digest]bool{},
	}
}

// content returns n bytes that differ by seed.
func content(n int, seed byte) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// layer makes a layer of data with a directory called dir.
func (s *site) layer(dir string, data []byte) backstore.Layer {
	s.t.Helper()
	b := blobtest.Bytes(data)
	l := backstore.Layer{Digest: b.Descriptor().Digest, Size: b.Size(), Dir: filepath.Join(s.root, dir)}
	if s.blobs[l.Digest] == nil {
		s.blobs[l.Digest] = blobtest.NewFaulty(b)
	}
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *site) attach(id string, layers ...backstore.Layer) {
	s.change(func() { s.images[id] = backstore.Image{Ref: ref, Layers: layers} })
}

func (s *site) detach(id string) { s.change(func() { delete(s.images, id) }) }

func (s *site) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *site) Images() map[string]backstore.Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	images := maps.Clone(s.images)
	for id, img := range images {
		img.Layers = append([]backstore.Layer(nil), img.Layers...)
		images[id] = img
	}
	delete(images, s.blink)
	s.blink = ""
	return images
}

func (s *site) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *site) UseFile(dgst digest.Digest, dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.useErr != nil {
		return s.useErr
	}
	for _, img := range s.images {
		for i := range img.Layers {
			if l := &img.Layers[i]; l.Digest == dgst && l.Dir == dir {
				l.File = filepath.Join(dir, backstore.LayerFile)
			}
		}
	}
	return nil
}

// cached is a blob that says what is local and takes part in discarding.
type cached struct {
	blob.Blob
	s *site
}

func (c cached) Discard(off, n int64) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if off == 0 && n == c.Size() {
		c.s.discarded[c.Descriptor().Digest] = true
	}
}

func (s *site) Open(_ string, desc ocispec.Descriptor) (blob.Blob, error) {
	return cached{s.blobs[desc.Digest], s}, nil
}

func (s *site) Quiet(string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.busyUntil) {
		return 0
	}
	return time.Since(s.busyUntil)
}

func (s *site) busy(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busyUntil = time.Now().Add(d)
}

func (s *site) LayerDownloaded(_ string, l backstore.Layer) { s.log("downloaded %s", l.Digest) }

func (s *site) DownloadFailed(_ string, _ backstore.Layer, err error) { s.log("%v", err) }

func (s *site) log(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

func (s *site) said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.events...)
}

// run runs f beside a downloader in a bubble with a clock of its own.
func (s *site) run(cfg download.Config, f func(d *download.Downloader)) {
	s.t.Helper()
	synctest.Test(s.t, func(t *testing.T) {
		d := download.New(s, s, s, cfg)
		// The channel must be one of the bubble.
		s.change(func() { s.changed = make(chan struct{}) })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		f(d)
		cancel()
		wg.Wait()
	})
}

// after lets so much time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// has checks that l's directory holds data as its file and nothing else.
func (s *site) has(l backstore.Layer, data []byte) {
	s.t.Helper()
	got, err := os.ReadFile(filepath.Join(l.Dir, backstore.LayerFile))
	if err != nil || !bytes.Equal(got, data) {
		s.t.Errorf("file of %s: %d bytes, equal: %v, %v", l.Digest, len(got), bytes.Equal(got, data), err)
	}
	s.holds(l, backstore.LayerFile)
}

// holds checks what files l's directory has.
func (s *site) holds(l backstore.Layer, names ...string) {
	s.t.Helper()
	entries, err := os.ReadDir(l.Dir)
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		s.t.Errorf("directory holds %v, want %v", got, names)
	}
}

// readsOf returns how many bytes of l were asked for.
func (s *site) readsOf(l backstore.Layer) (n int) {
	for _, r := range s.blobs[l.Digest].Reads() {
		if r.Priority != blob.Background {
			s.t.Errorf("read of %d bytes at %d has priority %v", r.Len, r.Off, r.Priority)
		}
		n += r.Len
	}
	return n
}
