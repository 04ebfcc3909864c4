package download

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// ErrMismatch says that a registry delivered something else than a digest says.
var ErrMismatch = errors.New("content does not have the digest")

// ErrDiskFull says that there is no space for a layer.
var ErrDiskFull = errors.New("disk is full")

// Images are the attached images; *attach.Attacher has them.
type Images interface {
	// Images returns them by id, made of what they are read from now.
	Images() map[string]backstore.Image
	// Changed returns a channel that is closed when there is one more or less.
	Changed() <-chan struct{}
	// UseFile makes them read the blob dgst from its file in dir.
	UseFile(dgst digest.Digest, dir string) error
}

// Registries is where layers come from.
type Registries interface {
	// Open returns a blob of the repository of ref, without asking for it.
	Open(ref string, desc ocispec.Descriptor) (blob.Blob, error)
	// Quiet returns for how long nobody has been waiting for the registry of
	// ref; 0 if somebody is.
	Quiet(ref string) time.Duration
}

// Observer is told what comes of downloads. It is called in parallel.
type Observer interface {
	// LayerDownloaded is called when a layer was verified and is read from its
	// file.
	LayerDownloaded(ref string, l backstore.Layer)
	// DownloadFailed is called when a layer could not be downloaded; it is
	// tried again later. That the disk is full (ErrDiskFull) is said once,
	// until something could be downloaded again.
	DownloadFailed(ref string, l backstore.Layer, err error)
}

// Downloader downloads what attached images lack.
type Downloader struct {
	images     Images
	registries Registries
	observer   Observer
	cfg        Config
	total      *rate.Limiter
	slots      chan struct{} // one token for each image being downloaded

	mu      sync.Mutex
	claimed map[digest.Digest]bool // by an image's worker
	failed  map[digest.Digest]failure
	freed   chan struct{} // closed when a claim is given up

	full  atomic.Bool // the observer was told
	count struct{ bytes, layers, mismatches, failures atomic.Int64 }
}

// failure is what is remembered of a layer that could not be downloaded.
type failure struct {
	times int
	until time.Time // it is left alone
}

// New returns a Downloader, which works while Run runs.
func New(images Images, registries Registries, o Observer, cfg Config) *Downloader {
	cfg = cfg.withDefaults()
	return &Downloader{
		images:     images,
		registries: registries,
		observer:   o,
		cfg:        cfg,
		total:      newRate(cfg.TotalRate),
		slots:      make(chan struct{}, cfg.Images),
		claimed:    make(map[digest.Digest]bool),
		failed:     make(map[digest.Digest]failure),
		freed:      make(chan struct{}),
	}
}

// Stats counts since the start.
type Stats struct {
	Bytes      int64 // written to local copies, from the cache or a registry
	Layers     int64 // downloaded, verified and in use
	Mismatches int64 // layers that had another digest
	Failures   int64 // layers that could not be downloaded for other reasons
}

// Stats returns what was downloaded.
func (d *Downloader) Stats() Stats {
	return Stats{
		Bytes:      d.count.bytes.Load(),
		Layers:     d.count.layers.Load(),
		Mismatches: d.count.mismatches.Load(),
		Failures:   d.count.failures.Load(),
	}
}

// Run downloads until ctx ends: one goroutine for each attached image that
// lacks something, of which Config.Images work and the others wait.
func (d *Downloader) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	running := make(map[string]*worker) // by image id
	ended := make(chan *worker)
	for {
		changed := d.images.Changed()
		images := d.images.Images()
		for id, w := range running {
			if _, ok := images[id]; !ok {
				w.stop()
				delete(running, id)
			}
		}
		for id, img := range images {
			if running[id] != nil || len(missing(img)) == 0 {
				continue
			}
			wctx, stop := context.WithCancel(ctx)
			w := &worker{id, stop}
			running[id] = w
			workers.Go(func() {
				d.work(wctx, id)
				select {
				case ended <- w:
				case <-ctx.Done():
				}
			})
		}
		d.forget(images)
		select {
		case <-ctx.Done():
			for _, w := range running {
				w.stop()
			}
			return nil
		case <-changed:
		case w := <-ended:
			// It may have met the image while that was detached, and the
			// image is back, with nobody who works for it.
			w.stop()
			if running[w.id] == w {
				delete(running, w.id)
			}
		}
	}
}

// worker is a goroutine of Run that downloads an image.
type worker struct {
	id   string // of the image
	stop context.CancelFunc
}

// missing returns the layers of img that are to be downloaded.
func missing(img backstore.Image) []backstore.Layer {
	var layers []backstore.Layer
	for _, l := range img.Layers {
		if l.Remote() && l.Dir != "" {
			layers = append(layers, l)
		}
	}
	return layers
}

// forget drops what is remembered of layers that no image lacks any more.
func (d *Downloader) forget(images map[string]backstore.Image) {
	lacking := make(map[digest.Digest]bool)
	for _, img := range images {
		for _, l := range missing(img) {
			lacking[l.Digest] = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for dgst := range d.failed {
		if !lacking[dgst] {
			delete(d.failed, dgst)
		}
	}
}

// work downloads image id until nothing of it is missing or ctx ends.
func (d *Downloader) work(ctx context.Context, id string) {
	if !pause.For(ctx, d.cfg.delay()) {
		return
	}
	limit := newRate(d.cfg.ImageRate)
	for ctx.Err() == nil {
		freed := d.released()
		img := d.images.Images()[id]
		layers := missing(img)
		if len(layers) == 0 {
			return // or it is being detached
		}
		if d.round(ctx, img.Ref, layers, limit) {
			continue
		}
		select { // for another image's worker, or for time to pass
		case <-ctx.Done():
		case <-freed:
		case <-time.After(d.soonest(layers)):
		}
	}
}

// round tries all layers once and reports whether it got any of them.
func (d *Downloader) round(ctx context.Context, ref string, layers []backstore.Layer, limit *rate.Limiter) (any bool) {
	for _, l := range layers {
		if ctx.Err() != nil {
			return any
		}
		if !d.claim(l.Digest) {
			continue
		}
		err := d.download(ctx, ref, l, limit)
		if ctx.Err() != nil {
			err = nil // the image is being detached, which is nobody's fault
		} else {
			any = any || err == nil
			d.note(ref, l, err)
		}
		d.release(l.Digest, err)
	}
	return any
}

// note counts and reports how a download ended.
func (d *Downloader) note(ref string, l backstore.Layer, err error) {
	switch {
	case err == nil:
		d.count.layers.Add(1)
		d.full.Store(false)
		d.observer.LayerDownloaded(ref, l)
		return
	case errors.Is(err, ErrMismatch):
		d.count.mismatches.Add(1)
	default:
		d.count.failures.Add(1)
	}
	if errors.Is(err, ErrDiskFull) && d.full.Swap(true) {
		return
	}
	d.observer.DownloadFailed(ref, l, err)
}

// claim reports whether the caller is to download dgst; then it must release it.
func (d *Downloader) claim(dgst digest.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claimed[dgst] || time.Now().Before(d.failed[dgst].until) {
		return false
	}
	d.claimed[dgst] = true
	return true
}

// release ends a claim; after an error the layer is left alone for a while.
func (d *Downloader) release(dgst digest.Digest, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.claimed, dgst)
	if err == nil {
		delete(d.failed, dgst)
	} else {
		times := d.failed[dgst].times + 1
		d.failed[dgst] = failure{times, time.Now().Add(backOff(times))}
	}
	close(d.freed)
	d.freed = make(chan struct{})
}

// released returns a channel that is closed when a claim is given up.
func (d *Downloader) released() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.freed
}

// soonest returns how long it takes until one of layers may be tried again.
func (d *Downloader) soonest(layers []backstore.Layer) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := longestPause
	for _, l := range layers {
		if f, ok := d.failed[l.Digest]; ok && !d.claimed[l.Digest] {
			wait = min(wait, max(time.Until(f.until), time.Millisecond))
		}
	}
	return wait
}
