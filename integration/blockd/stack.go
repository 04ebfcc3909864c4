package blockd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// stack is what a device is made of, as it is recorded.
type stack struct {
	Layers []string // files, bottom first
	Upper  int      // number of the writable layer
	// Next is set while the writable layer is about to become the topmost of
	// Layers, and this one the writable layer.
	Next int
}

func (c Config) stackFile(id string) string { return filepath.Join(c.folder(id), "stack.json") }

// create makes a device's folder, first writable layer and record.
func (c Config) create(d Device) error {
	for _, dir := range []string{c.folder(d.ID), c.Target(d.ID)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := lsmt.CreateUpper(c.upper(d.ID, "0"), d.options()); err != nil {
		return err
	}
	if err := c.save(d.ID, stack{Layers: d.Layers}); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(c.folder(d.ID))), syncDir(c.Dir))
}

func (d Device) options() lsmt.UpperOptions {
	return lsmt.UpperOptions{Identity: lsmt.Identity{VirtualSize: d.Size}, Sparse: d.Sparse}
}

func (c Config) save(id string, s stack) error {
	p, err := json.Marshal(s)
	if err != nil {
		return err
	}
	name := c.stackFile(id)
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(c.folder(id))
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (c Config) load(id string) (s stack, err error) {
	p, err := os.ReadFile(c.stackFile(id))
	if err == nil {
		err = json.Unmarshal(p, &s)
	}
	return s, err
}

// settle finishes a restacking that a daemon began, whether the new layer was in
// use already or not, and returns the stack.
func (c Config) settle(ctx context.Context, id string) (stack, error) {
	s, err := c.load(id)
	if err != nil || s.Next == 0 {
		return s, err
	}
	below, err := c.size(ctx, s.Layers)
	if err != nil {
		return s, err
	}
	files := c.upper(id, strconv.Itoa(s.Upper))
	if err := lsmt.SealUpper(ctx, files, below); err != nil {
		return s, fmt.Errorf("restacking %s: %w", id, err)
	}
	s.Layers, s.Upper, s.Next = append(s.Layers, files.Data), s.Next, 0
	return s, c.save(id, s)
}

// Restack has restack put a new writable layer on top of that of a device. It is
// recorded in a way that whoever opens the device next can finish it.
func (c Config) Restack(ctx context.Context, d Device, restack func(context.Context, lsmt.UpperFiles) error) (stack, error) {
	s, err := c.load(d.ID)
	if err != nil {
		return s, err
	}
	next := s
	next.Next = s.Upper + 1
	files := c.upper(d.ID, strconv.Itoa(next.Next))
	// Of an attempt that was not recorded.
	for _, f := range []string{files.Data, files.Index} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return s, err
		}
	}
	if err := lsmt.CreateUpper(files, d.options()); err != nil {
		return s, err
	}
	if err := c.save(d.ID, next); err != nil {
		return s, err
	}
	if err := restack(ctx, files); err != nil {
		return s, fmt.Errorf("restacking %s: %w", d.ID, err)
	}
	sealed := c.upper(d.ID, strconv.Itoa(s.Upper)).Data
	s.Layers, s.Upper = append(s.Layers, sealed), next.Next
	return s, c.save(d.ID, s)
}

// size returns that of a stack of layers.
func (c Config) size(ctx context.Context, layers []string) (int64, error) {
	m, done, err := openLayers(ctx, layers)
	if err != nil || m == nil {
		return 0, err
	}
	defer done()
	return m.Size(), nil
}

// image is what a stack is to the product.
func (c Config) image(id string, s stack) backstore.Image {
	files := c.upper(id, strconv.Itoa(s.Upper))
	img := backstore.Image{Upper: &files}
	for _, l := range s.Layers {
		img.Layers = append(img.Layers, backstore.Layer{File: l})
	}
	return img
}
