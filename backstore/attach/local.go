package attach

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
)

// Images returns the attached images by id, each made of what it is read from
// now: a layer that has become a file has one. Images that are being recorded are
// left out, because nothing is to be fetched of them but what they need.
func (a *Attacher) Images() map[string]backstore.Image {
	a.mu.Lock()
	defer a.mu.Unlock()
	images := make(map[string]backstore.Image, len(a.attached))
	for id, at := range a.attached {
		if !at.recording.Load() {
			images[id] = at.img.now()
		}
	}
	return images
}

// Changed returns a channel that is closed when the next image is attached or
// detached, or has been recorded. Who wants to miss nothing calls it before Images.
func (a *Attacher) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next
}

// announce closes what Changed returned. The caller holds mu.
func (a *Attacher) announce() {
	close(a.next)
	a.next = make(chan struct{})
}

// UseFile makes the attached images read the blob dgst that belongs into dir
// from the file backstore.LayerFile there, whose content the caller has
// verified. Reads under way are not disturbed.
func (a *Attacher) UseFile(dgst digest.Digest, dir string) error {
	var errs []error
	for _, l := range a.layers() {
		if !l.wants(dgst, dir) {
			continue
		}
		err := l.useFile(filepath.Join(dir, backstore.LayerFile))
		if err != nil && !errors.Is(err, errDetached) {
			errs = append(errs, fmt.Errorf("reading %s from its file: %w", dgst, err))
		}
	}
	a.wake() // an image may be local now
	return errors.Join(errs...)
}

// layers returns all layers of all images.
func (a *Attacher) layers() []*layer {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*layer
	for _, at := range a.attached {
		all = append(all, at.img.layers...)
	}
	return all
}
