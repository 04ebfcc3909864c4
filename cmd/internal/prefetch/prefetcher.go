package prefetch

import (
	"context"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

const (
	// maxWaiting is how many images may wait for their turn.
	maxWaiting = 1024
	// longest is how long an image may take: a registry that hangs must not
	// keep others from their turn.
	longest = 30 * time.Minute
	// planRoom bounds the encoded plans, or traces, of all images that are
	// worked on, in bytes: decoded and being fetched they take five times as
	// much. Those of up to smallPlan, 6000 ranges, do not count, so that they
	// never wait for large ones.
	planRoom, smallPlan = tracelayer.MaxPlan, 256 << 10
	// hold is for how long the blobs of an image are kept open after its replay,
	// so that what is known of the use of what was fetched is not lost before
	// the image is attached.
	hold = 10 * time.Minute
)

// Source is where layers come from; *chain.Chain is one.
type Source interface {
	Open(ref string, desc ocispec.Descriptor) (blob.Blob, error)
	OpenTrace(ref string, desc ocispec.Descriptor) (blob.Blob, error)
	Replay(ctx context.Context, ref string, trace backstore.TraceLayer, plan *tracelayer.Plan, layers []ocispec.Descriptor) (replay.Stats, error)
}

// Outcome is what came of an image.
type Outcome string

const (
	// Replayed is that its trace was replayed.
	Replayed Outcome = "replayed"
	// Listed is that the files of its priority list were read.
	Listed Outcome = "listed"
	// Local is that all of its layers are on this node.
	Local Outcome = "local"
	// Invalid is that there is something wrong with its trace.
	Invalid Outcome = "invalid"
	// Failed is that the trace or a layer could not be read.
	Failed Outcome = "failed"
	// Dropped is that too many other images were waiting.
	Dropped Outcome = "dropped"
)

// Outcomes are all of them.
var Outcomes = []Outcome{Replayed, Listed, Local, Invalid, Failed, Dropped}

// Observer is told what comes of images. It is called in parallel.
type Observer interface {
	// Prefetched is called when all is done for an image. err says why if the
	// outcome is Invalid or Failed; stats are zero unless it is Replayed.
	Prefetched(ref string, o Outcome, stats replay.Stats, err error)
	// Skipped is called when something of the traces of an image, or of the one
	// that is used, is left out, and the rest goes on.
	Skipped(ref string, why error)
}

// Config bounds what is done.
type Config struct {
	// Parallel is how many images are worked on at once.
	Parallel int
	// Budget is how many bytes of files in a priority list are read, 0 for no
	// limit.
	Budget int64
}

// Prefetcher fetches while Run runs.
type Prefetcher struct {
	source   Source
	finder   *Finder // nil: no referrers
	observer Observer
	cfg      Config
	plans    *semaphore.Weighted // of planRoom

	mu      sync.Mutex
	waiting []key
	images  map[key]*work // waiting or worked on
	held    map[key]held
	wake    chan struct{} // tells Run that there is something waiting
}

// key names what is replayed.
type key struct {
	repository string
	trace      digest.Digest // of a trace layer
	dir        string        // of one that was unpacked, and whose digest is not known
	manifest   digest.Digest // whose referrers are asked
}

// work is an image that waits or is worked on.
type work struct {
	img     backstore.Image
	running bool
}

// held are the blobs of an image.
type held struct {
	blobs []blob.Blob
	until time.Time
}

// New returns a Prefetcher of what is in source. finder may be nil.
func New(source Source, finder *Finder, o Observer, cfg Config) *Prefetcher {
	return &Prefetcher{
		source: source, finder: finder, observer: o, cfg: cfg, plans: semaphore.NewWeighted(planRoom),
		images: make(map[key]*work), held: make(map[key]held), wake: make(chan struct{}, 1),
	}
}

// Prefetch implements snapshot.Prefetcher.
func (p *Prefetcher) Prefetch(img backstore.Image) {
	k, ok := p.key(img)
	if !ok {
		return
	}
	if p.add(k, img) {
		p.observer.Prefetched(img.Ref, Dropped, replay.Stats{}, nil)
	}
	select {
	case p.wake <- struct{}{}:
	default: // it will look, and see this one, too
	}
}

// add has an image wait for its turn, unless it does already or is being worked
// on. It reports whether there are too many.
func (p *Prefetcher) add(k key, img backstore.Image) (dropped bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch w := p.images[k]; {
	case w != nil:
		if !w.running {
			w.img = img // which may be more complete
		}
	case len(p.waiting) >= maxWaiting:
		return true
	default:
		p.images[k] = &work{img: img}
		p.waiting = append(p.waiting, k)
	}
	return false
}

// key returns what is replayed for img; ok is false if that is nothing.
func (p *Prefetcher) key(img backstore.Image) (k key, ok bool) {
	if img.Ref != "" {
		named, err := reference.ParseNormalizedNamed(img.Ref)
		if err != nil {
			return k, false
		}
		k.repository = named.Name()
	}
	switch {
	case len(img.Layers) == 0:
		return k, false
	case img.Trace != nil && img.Trace.Layer.Digest != "":
		k.trace = img.Trace.Layer.Digest
	case img.Trace != nil:
		k.dir = img.Trace.Dir
	case p.finder != nil && img.Ref != "":
		k.manifest = manifestOf(img)
		return k, k.manifest != ""
	default:
		return k, false
	}
	return k, true
}

// manifestOf returns the digest of the manifest of img, "" if it is not known.
func manifestOf(img backstore.Image) digest.Digest {
	d := digest.Digest(img.Layers[len(img.Layers)-1].Annotations[labels.ManifestDigest])
	if d.Validate() != nil {
		return ""
	}
	return d
}

// Run fetches until ctx ends.
func (p *Prefetcher) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	slots := make(chan struct{}, max(p.cfg.Parallel, 1))
	tidy := time.NewTicker(hold / 2)
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tidy.C:
			p.release(time.Now())
			continue
		case <-p.wake:
		}
		for {
			select {
			case <-ctx.Done():
				return nil
			case slots <- struct{}{}:
			}
			k, img, ok := p.next()
			if !ok {
				<-slots
				break
			}
			workers.Go(func() {
				p.image(ctx, k, img)
				p.done(k)
				<-slots
			})
		}
	}
}

// next takes the image that has waited longest.
func (p *Prefetcher) next() (key, backstore.Image, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		return key{}, backstore.Image{}, false
	}
	k := p.waiting[0]
	p.waiting = p.waiting[1:]
	w := p.images[k]
	w.running = true
	return k, w.img, true
}

func (p *Prefetcher) done(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.images, k)
}

// keep holds the blobs of an image open.
func (p *Prefetcher) keep(k key, blobs []blob.Blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[k] = held{blobs, time.Now().Add(hold)}
}

// release lets go of what was held long enough.
func (p *Prefetcher) release(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, h := range p.held {
		if now.After(h.until) {
			delete(p.held, k)
		}
	}
}
