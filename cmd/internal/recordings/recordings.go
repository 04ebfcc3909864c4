package recordings

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/tracelayer"
)

// poll is how often it is looked whether a recording is to end.
const poll = 100 * time.Millisecond

// parallelWrites is how many finished recordings are written at once.
const parallelWrites = 2

// errStopped says that the daemon ended during a recording.
var errStopped = errors.New("the snapshotter was stopped during the recording")

// Attacher attaches images recorded; *attach.Attacher does.
type Attacher interface {
	Record(ctx context.Context, id string, img backstore.Image, target string, r *tracelayer.Recorder) error
	// Recorded says that the recording of id has ended, though the container
	// may go on.
	Recorded(id string)
}

// Observer is told what comes of recordings. It is called in parallel.
type Observer interface {
	// Recorded is called when a trace is written.
	Recorded(r Result)
	// RecordingFailed is called when there is none.
	RecordingFailed(ref, path string, err error)
}

// Result says what was recorded.
type Result struct {
	Ref  string // of the image
	Path string // of the trace
	// Records is how many reads the trace has. Dropped were beyond the limit,
	// and Unplanned of the records are not in the plan, because the layers do
	// not have what they are of, or there are too many.
	Records, Dropped, Unplanned int
	// NoPlan is why there is no plan; nil if there is one.
	NoPlan error
}

// Recordings records containers. What is recorded ends and is written while Run
// runs. Its methods may be called in parallel.
type Recordings struct {
	attacher Attacher
	open     attach.OpenBlob
	observer Observer
	cfg      Config

	mu     sync.Mutex
	active map[string]*recording // by device
	paths  map[string]bool       // that are written to, or will be
	wake   chan struct{}         // tells Run of a new one

	count struct{ started, finished, failed, refused atomic.Int64 }
}

// recording is one device that is recorded.
type recording struct {
	id       string
	img      backstore.Image
	recorder *tracelayer.Recorder
	target   *target
	own      bool      // nobody named a file and waits for it
	until    time.Time // when it ends at the latest
	ended    atomic.Bool
}

// fail ends rec without a trace.
func (rec *recording) fail(why error) {
	if rec.own {
		_ = rec.target.remove("", planSuffix, dataSuffix, okSuffix, errSuffix, lockSuffix)
		return
	}
	rec.target.fail(why)
}

// New returns recordings of what a attaches, whose plans are made of the blobs
// that open opens.
func New(a Attacher, open attach.OpenBlob, o Observer, cfg Config) *Recordings {
	return &Recordings{
		attacher: a, open: open, observer: o, cfg: cfg,
		active: make(map[string]*recording), paths: make(map[string]bool), wake: make(chan struct{}, 1),
	}
}

// Stats counts since the start.
type Stats struct {
	Active   int   // recordings under way
	Started  int64 // recordings
	Finished int64 // of them, with a trace
	Failed   int64 // of them, without
	Refused  int64 // that were wanted, but not begun
}

// Stats returns what was recorded.
func (r *Recordings) Stats() Stats {
	r.mu.Lock()
	active := len(r.active)
	r.mu.Unlock()
	return Stats{active, r.count.started.Load(), r.count.finished.Load(), r.count.failed.Load(), r.count.refused.Load()}
}

// Wanted implements snapshot.Recorder.
func (r *Recordings) Wanted(ref string) bool {
	if !slices.ContainsFunc(r.cfg.Images, func(p string) bool { return matches(p, ref) }) {
		return false
	}
	if n, err := r.kept(ref); err != nil || n >= r.cfg.Keep {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.active) < r.cfg.Parallel
}

// Record implements snapshot.Recorder.
func (r *Recordings) Record(ctx context.Context, id string, img backstore.Image, target string, opts snapshot.RecordOptions) error {
	rec, err := r.begin(id, img, opts)
	if err != nil {
		r.count.refused.Add(1)
		return err
	}
	err = r.attacher.Record(ctx, id, img, target, rec.recorder)
	if err != nil {
		r.giveUp(rec, err)
		return err
	}
	r.count.started.Add(1)
	r.mu.Lock()
	r.active[id] = rec
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // it will look at this one, too
	}
	return nil
}

// begin prepares the files of a recording.
func (r *Recordings) begin(id string, img backstore.Image, opts snapshot.RecordOptions) (*recording, error) {
	if opts.Asked && !r.cfg.ByLabel {
		return nil, fmt.Errorf("recording for a label is off (trace.record_labels): %w", errdefs.ErrPermissionDenied)
	}
	if r.isActive(id) {
		return nil, fmt.Errorf("device %s is being recorded: %w", id, errdefs.ErrAlreadyExists)
	}
	rec := &recording{id: id, img: img, recorder: tracelayer.NewRecorder(r.cfg.Records), until: time.Now().Add(r.cfg.LabelTime)}
	path := opts.File
	if path == "" {
		n, err := r.kept(img.Ref)
		if err == nil && n >= r.cfg.Keep {
			err = fmt.Errorf("there are %d recordings of this repository already (trace.record_keep): %w", n, errdefs.ErrResourceExhausted)
		}
		if err == nil {
			path, err = r.newFile(img.Ref)
		}
		if err != nil {
			return nil, err
		}
		rec.own, rec.until = true, time.Now().Add(r.cfg.Time)
	}
	err := r.reserve(path)
	if err == nil {
		if rec.target, err = r.lockTarget(path); err != nil {
			r.release(path)
		}
	}
	if err != nil && rec.own {
		err = errors.Join(err, os.Remove(path))
	}
	return rec, err
}

func (r *Recordings) isActive(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.active[id] != nil
}

// lockTarget opens the file at path and makes its lock file.
func (r *Recordings) lockTarget(path string) (*target, error) {
	t, err := openTarget(path, r.below(), false)
	if err != nil {
		return nil, err
	}
	if err := t.lock(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// below returns the directories that traces are written below.
func (r *Recordings) below() []string { return append(slices.Clip(r.cfg.Paths), r.cfg.Dir) }

// reserve notes that path is written to, unless it is already or there is too
// much to do.
func (r *Recordings) reserve(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.paths[path]:
		return fmt.Errorf("another recording is written to %s: %w", path, errdefs.ErrFailedPrecondition)
	case len(r.paths) >= r.cfg.Parallel:
		return fmt.Errorf("there are %d recordings already (trace.max_recordings): %w", len(r.paths), errdefs.ErrResourceExhausted)
	}
	r.paths[path] = true
	return nil
}

func (r *Recordings) release(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.paths, path)
}

// giveUp ends a recording whose device could not be attached.
func (r *Recordings) giveUp(rec *recording, err error) {
	r.recorded(rec)
	rec.fail(err)
	rec.target.close()
	r.release(rec.target.path)
}

// recorded takes what was recorded. From then on the device, which may go on, is
// like any other, and holds no records.
func (r *Recordings) recorded(rec *recording) tracelayer.Trace {
	trace := rec.recorder.Stop()
	rec.recorder.Release()
	r.attacher.Recorded(rec.id)
	return trace
}

// Ended tells that the device id is about to go: its recording is written.
func (r *Recordings) Ended(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.active[id]; rec != nil {
		rec.recorder.Stop()
		rec.ended.Store(true)
	}
}

// Abandon implements snapshot.Recorder. An earlier daemon that ended properly
// said so itself. One that did not may have written all but that, or some of it, and
// in any case somebody may wait for a word.
func (r *Recordings) Abandon(_ string, opts snapshot.RecordOptions) {
	if opts.File == "" {
		return
	}
	t, err := openTarget(opts.File, r.below(), true)
	if err != nil {
		return // nobody waits for a trace any more, or it is not ours
	}
	defer t.close()
	switch {
	case t.has(okSuffix) || t.has(errSuffix):
	case t.complete():
		if err := t.succeed(); err != nil {
			t.say(err)
		}
	case t.locked():
		t.fail(errStopped)
	default: // what is in the file may be something else meanwhile
		t.say(errStopped)
	}
}

// Run ends recordings and writes them until ctx ends. Those that are under way
// then are lost, and whoever waits for them is told.
func (r *Recordings) Run(ctx context.Context) error {
	r.sweep()
	var writers sync.WaitGroup
	slots := make(chan struct{}, parallelWrites)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, rec := range r.due() {
			writers.Go(func() {
				select {
				case slots <- struct{}{}:
					r.write(ctx, rec)
					<-slots
				case <-ctx.Done():
					r.lose(rec)
				}
			})
		}
		next := tick.C
		if r.idle() {
			next = nil // a daemon with nothing to do does nothing
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-next:
		}
	}
	writers.Wait()
	for _, rec := range r.take(func(*recording) bool { return true }) {
		r.lose(rec)
	}
	return nil
}

func (r *Recordings) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.active) == 0
}

// due takes the recordings that are to end now. Whether they are is looked up without
// the lock: their directories may be slow.
func (r *Recordings) due() []*recording {
	now := time.Now()
	r.mu.Lock()
	active := slices.Collect(maps.Values(r.active))
	r.mu.Unlock()
	active = slices.DeleteFunc(active, func(rec *recording) bool {
		return !rec.ended.Load() && now.Before(rec.until) && rec.target.locked()
	})
	if len(active) == 0 {
		return nil
	}
	return r.take(func(rec *recording) bool { return slices.Contains(active, rec) })
}

// take takes the recordings for which is holds from those under way.
func (r *Recordings) take(is func(*recording) bool) []*recording {
	r.mu.Lock()
	defer r.mu.Unlock()
	var taken []*recording
	for id, rec := range r.active {
		if is(rec) {
			taken = append(taken, rec)
			delete(r.active, id)
		}
	}
	return taken
}

// lose ends a recording for which there is no time.
func (r *Recordings) lose(rec *recording) {
	r.recorded(rec)
	rec.fail(errStopped)
	r.end(rec, errStopped)
}

// end releases a recording that was written, or could not be.
func (r *Recordings) end(rec *recording, err error) {
	rec.target.close()
	r.release(rec.target.path)
	if err != nil {
		r.count.failed.Add(1)
		r.observer.RecordingFailed(rec.img.Ref, rec.target.path, err)
		return
	}
	r.count.finished.Add(1)
}
