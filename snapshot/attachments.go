package snapshot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
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
	devices Devices
	dirs    layout
	timeout time.Duration

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
	return &attachments{devices: d, dirs: dirs, timeout: timeout, images: map[string]*attachment{}}
}

// attach mounts the image snapshot id unless it is mounted and returns the
// directory it is mounted on.
func (a *attachments) attach(ctx context.Context, id string) (string, error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	image := a.enter(id)
	defer a.leave(id, image)
	select {
	case image.lock <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for image %s to be attached: %w", id, context.Cause(ctx))
	}
	defer image.unlock()

	config, err := readConfig(a.dirs.snapshot(id))
	if err != nil {
		return "", fmt.Errorf("attaching image %s: %w", id, err)
	}
	img, err := config.image()
	if err != nil {
		return "", fmt.Errorf("attaching image %s: %w", id, err)
	}
	target := a.dirs.mountpoint(id)
	a.set(image, true)
	if err := a.devices.Attach(ctx, id, img, target); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return "", fmt.Errorf("attaching image %s (%s): %w", id, img.Ref, err)
	}
	return target, nil
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
