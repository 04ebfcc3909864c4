package snapshot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/backstore"
)

// attachments mounts images once each, however many users they have, and
// lets no two calls for one image reach the devices at a time. All methods may
// be called concurrently.
//
// The lock of an image is taken before a transaction, never in one. A user is
// counted before it calls attach, and users are looked for with the lock held
// before an image is detached: so an image is detached under nobody, and
// whoever comes late attaches it again.
type attachments struct {
	devices    Devices
	prefetcher Prefetcher // nil if the devices are none
	recorder   Recorder   // nil if the devices are none
	writer     Writer     // nil if the devices are none
	dirs       layout
	timeout    time.Duration

	mu     sync.Mutex
	images map[string]*attachment
}

// attachment is the state of one image.
type attachment struct {
	// lock has room for one token, which its holder puts in.
	lock chan struct{}
	// interested counts holders and waiters; protected by attachments.mu.
	interested int
	// attached means that there may be something to detach; protected by
	// lock for writing and by attachments.mu as well.
	attached bool
	// users counts the active and view snapshots on the image: one that is
	// created is counted just before the metastore has it, one that is
	// removed or committed just after. Protected by attachments.mu.
	users int
}

func newAttachments(d Devices, dirs layout, timeout time.Duration) *attachments {
	a := &attachments{devices: d, dirs: dirs, timeout: timeout, images: map[string]*attachment{}}
	a.prefetcher, _ = d.(Prefetcher)
	a.recorder, _ = d.(Recorder)
	a.writer, _ = d.(Writer)
	return a
}

// attach mounts the image snapshot id unless it is mounted and returns the
// directory it is mounted on.
func (a *attachments) attach(ctx context.Context, id string) (string, error) {
	return a.attachAs(ctx, id, id, func(ctx context.Context, img backstore.Image, target string, first bool) error {
		if first && a.prefetcher != nil {
			a.prefetcher.Prefetch(img) // what attaching reads is a part of it
		}
		return a.devices.Attach(ctx, id, img, target)
	})
}

// attachAs mounts the image snapshot image as attachment id, by a call of do,
// and returns the directory it is mounted on. do is told whether there can be
// nothing of it yet.
func (a *attachments) attachAs(ctx context.Context, id, image string,
	do func(ctx context.Context, img backstore.Image, target string, first bool) error,
) (string, error) {
	target := a.dirs.mountpoint(id)
	return target, a.locked(ctx, id, func(ctx context.Context, first bool) error {
		img, err := a.dirs.image(image)
		if err != nil {
			return fmt.Errorf("attaching image %s: %w", id, err)
		}
		if err := do(ctx, img, target, first); err != nil {
			return fmt.Errorf("attaching image %s (%s): %w", id, img.Ref, err)
		}
		return nil
	})
}

// locked calls do with the lock of attachment id held, after which there may be
// something to detach. do is told whether there can be nothing yet.
func (a *attachments) locked(ctx context.Context, id string, do func(ctx context.Context, first bool) error) error {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	state := a.enter(id)
	defer a.leave(id, state)
	select {
	case state.lock <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting for image %s to be attached: %w", id, context.Cause(ctx))
	}
	defer state.unlock()

	first := !state.attached
	a.set(state, true)
	err := do(ctx, first)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}

// errBusy says that an image is being attached or detached. Its class tells
// containerd's garbage collection to try again later.
var errBusy = fmt.Errorf("being attached or detached: %w", errdefs.ErrFailedPrecondition)

// exclusive runs fn with the lock of image id held. It does not wait for the
// lock but returns errBusy: somebody may be waiting for a registry with it, and
// what the caller wants can be done later.
func (a *attachments) exclusive(id string, fn func(image *attachment) error) error {
	image := a.enter(id)
	defer a.leave(id, image)
	select {
	case image.lock <- struct{}{}:
	default:
		return fmt.Errorf("image %s is %w", id, errBusy)
	}
	defer image.unlock()
	return fn(image)
}

// bounded returns ctx with the time limit for device work.
func (a *attachments) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, a.timeout,
		fmt.Errorf("not done after %v, is the registry reachable? %w", a.timeout, errdefs.ErrUnavailable))
}

// detach unmounts an image whose lock is held. It stays known as attached if
// that fails, so that it is tried again.
func (a *attachments) detach(ctx context.Context, id string, image *attachment) error {
	if !image.attached {
		return nil
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	if err := a.devices.Detach(ctx, id, a.dirs.mountpoint(id)); err != nil {
		return fmt.Errorf("detaching image %s: %w", id, err)
	}
	a.set(image, false)
	return nil
}

// use counts n more users of image id, or -n fewer, if id is not empty. It
// detaches nothing.
func (a *attachments) use(id string, n int) {
	if id == "" {
		return
	}
	image := a.enter(id)
	a.mu.Lock()
	image.users += n
	a.mu.Unlock()
	a.leave(id, image)
}

// unuse forgets all users of attachment id.
func (a *attachments) unuse(id string) {
	image := a.enter(id)
	a.mu.Lock()
	image.users = 0
	a.mu.Unlock()
	a.leave(id, image)
}

// detachIdle unmounts image id unless it has users, or is just getting some.
func (a *attachments) detachIdle(ctx context.Context, id string) error {
	err := a.exclusive(id, func(image *attachment) error {
		if a.used(image) {
			return nil
		}
		return a.detach(ctx, id, image)
	})
	if errors.Is(err, errBusy) {
		return nil // for a user, or by somebody else
	}
	return err
}

func (a *attachments) used(image *attachment) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return image.users > 0
}

// attached returns the ids of all images that may be attached.
func (a *attachments) attached() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []string
	for id, image := range a.images {
		if image.attached {
			ids = append(ids, id)
		}
	}
	return ids
}

// adopt records what Recover found attached.
func (a *attachments) adopt(ids []string) {
	for _, id := range ids {
		image := a.enter(id)
		a.set(image, true)
		a.leave(id, image)
	}
}

func (a *attachments) enter(id string) *attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	image := a.images[id]
	if image == nil {
		image = &attachment{lock: make(chan struct{}, 1)}
		a.images[id] = image
	}
	image.interested++
	return image
}

func (a *attachments) leave(id string, image *attachment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	image.interested--
	if image.interested == 0 && !image.attached && image.users == 0 {
		delete(a.images, id)
	}
}

func (a *attachments) set(image *attachment, attached bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	image.attached = attached
}

func (i *attachment) unlock() { <-i.lock }
