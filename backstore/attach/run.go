package attach

import (
	"context"
	"sync"
	"time"
)

// Run reads ahead of cold images and turns the kernel's readahead on for those
// that have become local, until ctx ends.
func (a *Attacher) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	tick := time.NewTicker(a.cfg.LocalCheck)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-a.changed:
			a.start(ctx, &readers)
			a.graduate(ctx)
		case <-tick.C:
			a.graduate(ctx)
			if n%demoteEvery == 0 {
				a.demote(ctx)
			}
		}
	}
}

// demoteEvery is how many looks at cold images there are for one at the local
// ones: to see that an image is still local takes all of its index, to see that
// one is cold takes the first block that is missing.
const demoteEvery = 12

// wake makes Run look at what is attached.
func (a *Attacher) wake() {
	select {
	case a.changed <- struct{}{}:
	default: // it will, and will see this change too
	}
}

// start starts the readahead of new images.
func (a *Attacher) start(ctx context.Context, readers *sync.WaitGroup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.attached {
		if at.stop != nil {
			continue
		}
		dctx, stop := context.WithCancel(ctx)
		at.stop = stop
		readers.Go(func() {
			_ = at.dev.Run(dctx) // ends with dctx
		})
	}
}

// graduate turns the kernel's readahead on for images that became local.
// Failing to is no harm but to speed, and is tried again.
func (a *Attacher) graduate(ctx context.Context) {
	for id, at := range a.images(false) {
		if at.img.local() && a.server.SetReadahead(ctx, id, a.cfg.LocalReadahead) == nil {
			at.local.Store(true)
		}
	}
}

// demote turns it off for images of which the cache gave something up.
func (a *Attacher) demote(ctx context.Context) {
	for id, at := range a.images(true) {
		if !at.img.local() && a.server.SetReadahead(ctx, id, 0) == nil {
			at.local.Store(false)
		}
	}
}

// images returns the images that were, or were not, local when last looked at,
// without those that are being recorded: to them it makes no difference.
func (a *Attacher) images(local bool) map[string]*attached {
	a.mu.Lock()
	defer a.mu.Unlock()
	some := make(map[string]*attached)
	for id, at := range a.attached {
		if at.local.Load() == local && !at.recording.Load() {
			some[id] = at
		}
	}
	return some
}
