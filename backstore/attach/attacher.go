package attach

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Server shows devices to the kernel; *fusedev.Server does.
type Server interface {
	Add(ctx context.Context, id string, d device.Device) error
	Remove(ctx context.Context, id string) error
	Mount(ctx context.Context, id string, m fusedev.Mount) error
	Unmount(ctx context.Context, target string) error
	SetReadahead(ctx context.Context, id string, kib int) error
	Mounts() ([]fusedev.MountInfo, error)
	Stats() []fusedev.DeviceStats
	Ready()

	Resized(ctx context.Context, id string) error
	Format(ctx context.Context, id, fsType, options string) error
	Loop(ctx context.Context, id string) (dev string, err error)
	Loops() ([]fusedev.LoopInfo, error)
	Unloop(ctx context.Context, id string) error
	Freeze(ctx context.Context, target string, during func() error) error
	GrowFS(ctx context.Context, id, target string) error
	Tidy(ctx context.Context) error
}

// Config says how attached images behave.
type Config struct {
	// Readahead is the daemon's own, over cold images.
	Readahead readahead.Config
	// Quiet returns for how long nobody has been waiting for the registry of an
	// image reference, 0 if somebody is. Without it nobody ever is.
	Quiet func(ref string) time.Duration
	// LocalReadahead is the kernel's readahead in KiB for an image that is
	// wholly local. 1024 is what sequential reads gain from; more is not.
	LocalReadahead int
	// LocalCheck is the time between two looks at whether cold images have
	// become local. Default 5 s.
	LocalCheck time.Duration
}

// DefaultConfig is measured: see docs/device.md.
var DefaultConfig = Config{
	Readahead:      readahead.DefaultConfig,
	LocalReadahead: 1024,
	LocalCheck:     5 * time.Second,
}

// Attacher attaches images to a Server. Its methods may be called in parallel,
// but those for one id only one after another. Images are read ahead of, and
// turn local, while Run runs.
type Attacher struct {
	server Server
	open   OpenBlob
	cfg    Config
	ahead  readahead.Counters // of all images

	mu       sync.Mutex
	attached map[string]*attached
	changed  chan struct{} // told Run that attached changed
	next     chan struct{} // closed by the next change of attached
}

// attached is an attached image, and the device that it is.
type attached struct {
	img *image
	// upper is the writable layer on top of img, which may have no layers then,
	// or nil: then the device can't be written.
	upper *lsmt.Upper
	// dev is img with readahead, and without its recorder.
	dev   *readahead.Device
	local atomic.Bool        // the kernel's readahead is on; set by Run
	stop  context.CancelFunc // ends readahead; nil until Run starts it

	recording atomic.Bool
}

// Size implements device.Device.
func (at *attached) Size() int64 { return at.img.Size() }

// ReadAt implements device.Device.
func (at *attached) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if !at.recording.Load() {
		return at.dev.ReadAt(ctx, p, off)
	}
	// What is not held comes with what is around it, as without a recording: one
	// request for each page would take a cold start many times as long, and a
	// recording that has a time limit would miss the end of it. Only then are
	// the bytes that were asked for read where that is recorded.
	if !at.img.Present(off, int64(len(p))) {
		if n, err := at.dev.ReadAt(ctx, p, off); err != nil {
			return n, err
		}
	}
	return at.img.ReadAt(ctx, p, off)
}

// Present implements blob.Presence.
func (at *attached) Present(off, n int64) bool { return at.img.Present(off, n) }

// NextData implements lsmt.Sparse.
func (at *attached) NextData(off int64) (start, end int64, err error) { return at.img.NextData(off) }

// New returns an Attacher that opens remote layers by open.
func New(server Server, open OpenBlob, cfg Config) *Attacher {
	if cfg.LocalCheck <= 0 {
		cfg.LocalCheck = DefaultConfig.LocalCheck
	}
	return &Attacher{
		server:   server,
		open:     open,
		cfg:      cfg,
		attached: make(map[string]*attached),
		changed:  make(chan struct{}, 1),
		next:     make(chan struct{}),
	}
}

// Attach opens img as device id and mounts the file system in it, read-only,
// on the existing directory target. What is done already stays; a failed
// Attach leaves nothing mounted.
func (a *Attacher) Attach(ctx context.Context, id string, img backstore.Image, target string) error {
	return a.attach(ctx, id, img, target, nil)
}

// Record is Attach with the reads of the image noted by r: those that programs need
// and no others. Nothing is read ahead by the kernel, which has no pages of it
// either, because it is a device of its own, even if the same image is attached
// under another id. What the daemon reads ahead is not recorded. The image is not
// among Images, so that it is not downloaded.
//
// That is so until Recorded, or Detach. A daemon that takes the device over
// (Recover) serves it like any other, unrecorded. An id that is attached already is
// an error.
func (a *Attacher) Record(ctx context.Context, id string, img backstore.Image, target string, r *tracelayer.Recorder) error {
	if a.find(id) != nil {
		return fmt.Errorf("recording device %s: it is attached already", id)
	}
	return a.attach(ctx, id, img, target, r)
}

// Recorded says that the recording of id has ended: from now on, the image is like
// any other. It does nothing if id is not recorded.
func (a *Attacher) Recorded(id string) {
	at := a.find(id)
	if at == nil || !at.recording.Swap(false) {
		return
	}
	a.mu.Lock()
	a.announce()
	a.mu.Unlock()
	a.wake()
}

// attach is Attach, recorded if there is a recorder.
func (a *Attacher) attach(ctx context.Context, id string, img backstore.Image, target string, r *tracelayer.Recorder) error {
	added, err := a.add(ctx, id, img, r)
	if err != nil {
		return err
	}
	err = a.server.Mount(ctx, id, fusedev.Mount{Target: target, FSType: img.FSType})
	if err != nil && added {
		// ctx may be why the mount failed; what is left must go all the same.
		err = errors.Join(err, a.remove(context.WithoutCancel(ctx), id))
	}
	return err
}

// add serves img as device id, unless it is served, and reports whether it did.
func (a *Attacher) add(ctx context.Context, id string, spec backstore.Image, r *tracelayer.Recorder) (bool, error) {
	if a.find(id) != nil {
		return false, nil
	}
	img := newImage(spec, 0, a.open)
	img.recorder = r
	if _, err := img.load(ctx); err != nil {
		img.close()
		return false, err
	}
	return true, a.serve(ctx, id, img)
}

// serve adds img to the server.
func (a *Attacher) serve(ctx context.Context, id string, img *image) error {
	return a.register(ctx, id, a.newAttached(img))
}

// newAttached returns the device of img.
func (a *Attacher) newAttached(img *image) *attached {
	shared := readahead.Shared{Counters: &a.ahead}
	if a.cfg.Quiet != nil {
		shared.Quiet = func() time.Duration { return a.cfg.Quiet(img.spec.Ref) }
	}
	plain := img
	if img.recorder != nil {
		plain = img.unrecorded()
	}
	at := &attached{img: img, dev: readahead.NewShared(plain, a.cfg.Readahead, shared)}
	at.recording.Store(img.recorder != nil)
	return at
}

// register adds at to the server, or closes it.
func (a *Attacher) register(ctx context.Context, id string, at *attached) error {
	var d device.Device = at
	if at.upper != nil {
		d = at.upper
	}
	if err := a.server.Add(ctx, id, d); err != nil {
		return errors.Join(err, at.close())
	}
	a.mu.Lock()
	a.attached[id] = at
	a.announce()
	a.mu.Unlock()
	a.wake()
	return nil
}

// close closes what the device is made of.
func (at *attached) close() error {
	if at.stop != nil {
		at.stop()
	}
	var err error
	if at.upper != nil {
		err = at.upper.Close()
	}
	at.img.close()
	return err
}

// Detach undoes Attach, AttachWritable and Device; target is "" if nothing was
// mounted. It returns nil if there is nothing to undo; after an error it can be
// called again. What was written is durable afterwards.
func (a *Attacher) Detach(ctx context.Context, id, target string) error {
	at := a.find(id)
	if target != "" {
		err := a.server.Unmount(ctx, target)
		// A copy of the mount in another namespace goes on writing.
		if err != nil && (!errors.Is(err, fusedev.ErrPinned) || at != nil && at.upper != nil) {
			return err
		}
	}
	if err := a.server.Unloop(ctx, id); err != nil {
		return err
	}
	if at != nil && at.upper != nil {
		if err := at.upper.Flush(ctx); err != nil {
			return err
		}
	}
	return a.remove(ctx, id)
}

// remove takes device id away, which must not be mounted. That there is none,
// as after an Attach that failed, is no error.
func (a *Attacher) remove(ctx context.Context, id string) error {
	err := a.server.Remove(ctx, id)
	if errors.Is(err, fusedev.ErrNotFound) {
		err = nil
	}
	a.mu.Lock()
	at := a.attached[id]
	delete(a.attached, id)
	a.announce()
	a.mu.Unlock()
	if at != nil {
		err = errors.Join(err, at.close())
	}
	return err
}

// Close closes the layers of all that is attached, and makes durable what was
// written. The server must not answer any more; devices and mounts stay, for a
// successor.
func (a *Attacher) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for id, at := range a.attached {
		if err := at.close(); err != nil {
			errs = append(errs, fmt.Errorf("closing device %s: %w", id, err))
		}
	}
	clear(a.attached)
	return errors.Join(errs...)
}

// Stats says how many images are attached.
type Stats struct {
	Attached int // images
	Local    int // images that are held locally as a whole, as Run saw last
	// Readahead is of all images that ever were.
	Readahead readahead.Stats
}

// Stats returns how many images are attached.
func (a *Attacher) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Stats{Attached: len(a.attached), Readahead: a.ahead.Stats()}
	for _, at := range a.attached {
		if at.local.Load() {
			s.Local++
		}
	}
	return s
}

// find returns what is attached as id, nil if nothing is.
func (a *Attacher) find(id string) *attached {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attached[id]
}

// Recover takes over what an earlier daemon attached: of images those that are
// mounted, or have a loop device, are served again, without a look at their layers.
// What is mounted or served of others is dropped. It returns the ids of the images
// that are attached now. It is called once, before Attach.
//
// A mount of a wanted device somewhere else stays: it is that of a container to
// which a writable device was given.
func (a *Attacher) Recover(ctx context.Context, images []backstore.Attachment) ([]string, error) {
	wanted := make(map[string]backstore.Attachment, len(images))
	for _, i := range images {
		wanted[i.ID] = i
	}
	mounts, err := a.server.Mounts()
	if err != nil {
		return nil, err
	}
	loops, err := a.server.Loops()
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool)
	var stray []fusedev.MountInfo
	for _, m := range mounts {
		if _, ok := wanted[m.ID]; ok {
			used[m.ID] = true
		} else {
			stray = append(stray, m)
		}
	}
	var gone []string
	for _, l := range loops {
		if _, ok := wanted[l.ID]; ok {
			used[l.ID] = true
		} else {
			gone = append(gone, l.ID)
		}
	}
	for _, d := range a.server.Stats() {
		if !used[d.ID] {
			gone = append(gone, d.ID)
		} else if err := a.takeOver(ctx, d, wanted[d.ID].Image); err != nil {
			// One that is broken must not keep the daemon from serving others.
			log.G(ctx).WithError(err).WithField("device", d.ID).Error("a device cannot be taken over; who has it mounted gets I/O errors")
			delete(used, d.ID)
		}
	}
	// Reads of what is about to be unmounted must not wait for a device
	// that will never come.
	a.server.Ready()
	slices.Sort(gone)
	err = a.drop(ctx, stray, slices.Compact(gone))
	return slices.Sorted(maps.Keys(used)), errors.Join(err, a.server.Tidy(ctx))
}

// takeOver serves device d of an earlier daemon again.
func (a *Attacher) takeOver(ctx context.Context, d fusedev.DeviceStats, spec backstore.Image) error {
	img := newImage(spec, d.Size, a.open)
	if spec.Upper == nil {
		return a.serve(ctx, d.ID, img)
	}
	img.part = true
	return a.serveWritable(ctx, d.ID, img)
}

// drop unmounts and removes what nobody wants any more. What is busy stays and
// is tried again by the next Recover.
func (a *Attacher) drop(ctx context.Context, mounts []fusedev.MountInfo, devices []string) error {
	busy := make(map[string]bool)
	for _, m := range mounts {
		switch err := a.server.Unmount(ctx, m.Target); {
		case errors.Is(err, fusedev.ErrBusy):
			busy[m.ID] = true
		case err != nil && !errors.Is(err, fusedev.ErrPinned):
			return fmt.Errorf("unmounting stray %s: %w", m.Target, err)
		}
	}
	for _, id := range devices {
		err := a.server.Unloop(ctx, id)
		if busy[id] || errors.Is(err, fusedev.ErrBusy) {
			continue
		}
		if err == nil {
			err = a.server.Remove(ctx, id)
		}
		if err != nil && !errors.Is(err, fusedev.ErrNotFound) {
			return fmt.Errorf("removing stray device %s: %w", id, err)
		}
	}
	return nil
}
