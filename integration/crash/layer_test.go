package crash_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/integration/blockd"
	"github.com/reprise-containers/reprise/integration/load/sectors"
)

// layerDisk is a writable layer without a device around it.
type layerDisk struct {
	ctx context.Context
	*lsmt.Upper
}

func (d layerDisk) ReadAt(p []byte, off int64) error {
	_, err := d.Upper.ReadAt(d.ctx, p, off)
	return err
}

func (d layerDisk) WriteAt(p []byte, off int64) error {
	_, err := d.Upper.WriteAt(d.ctx, p, off)
	return err
}

func (d layerDisk) Discard(off, n int64) error { return d.Upper.Discard(d.ctx, off, n) }
func (d layerDisk) Zero(off, n int64) error    { return d.Upper.Discard(d.ctx, off, n) }
func (d layerDisk) Flush() error               { return d.Upper.Flush(d.ctx) }

// TestLayer loads writable layers without a kernel in between: with pictures,
// restackings and reopening.
func TestLayer(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		t.Run("sparse="+strconv.FormatBool(sparse), func(t *testing.T) { loadLayer(t, sparse) })
	}
}

func loadLayer(t *testing.T, sparse bool) {
	dir := t.TempDir()
	r, d := newRaw(t, dir, "layer", sparse, 5)
	cfg := blockd.Config{Dir: dir, Devices: []blockd.Device{d}}
	check(t, cfg.Prepare())
	pictures := 0
	for round := range 4 {
		o, err := cfg.Open(t.Context(), r.id)
		check(t, err)
		if _, err := r.load.Check(sectors.WithContext(t.Context(), o), r.load.Acknowledged()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		cancel, wait := background(t, func(ctx context.Context) error {
			return r.load.Run(ctx, layerDisk{context.WithoutCancel(ctx), o.Upper})
		})
		for range 4 {
			time.Sleep(50 * time.Millisecond)
			floor := r.load.Acknowledged()
			file := filepath.Join(dir, "picture")
			check(t, commitUpper(t.Context(), o.Upper, file))
			m, err := blockd.OpenLayers(t.Context(), append(d.Layers[:1:1], file))
			check(t, err)
			if _, err := r.load.Check(sectors.WithContext(t.Context(), m), floor); err != nil {
				t.Fatalf("picture %d: %v", pictures, err)
			}
			m.Close()
			pictures++
		}
		cancel()
		wait()
		if _, err := r.load.Check(sectors.WithContext(t.Context(), o), r.load.Acknowledged()); err != nil {
			t.Fatalf("round %d, open: %v", round, err)
		}
		st := o.Stats()
		t.Logf("%+v", st)
		check(t, o.Close())
	}
	layers, err := cfg.Seal(t.Context(), r.id)
	check(t, err)
	m, err := blockd.OpenLayers(t.Context(), layers)
	check(t, err)
	defer m.Close()
	if _, err := r.load.Check(sectors.WithContext(t.Context(), m), r.load.Acknowledged()); err != nil {
		t.Fatalf("sealed: %v", err)
	}
	t.Logf("writes, discards, zeroes, flushes: %v; %d pictures", r.load.Done(), pictures)
}

func commitUpper(ctx context.Context, u *lsmt.Upper, file string) error {
	l, release, err := u.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer release()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(l.Commit(ctx, f, lsmt.Identity{}), f.Close())
}
