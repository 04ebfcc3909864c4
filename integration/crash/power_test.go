package crash_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/integration/blockd"
	"github.com/reprise-containers/reprise/integration/load/sectors"
	"github.com/reprise-containers/reprise/integration/plainfs"
)

// TestPowerLoss takes the power of the host's file system while layers on it are
// loaded: what was flushed is there afterwards, and the rest is old or new.
func TestPowerLoss(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		t.Run("sparse="+strconv.FormatBool(sparse), func(t *testing.T) { check(t, losePower(t, sparse, true)) })
		t.Run("unflushed, sparse="+strconv.FormatBool(sparse), func(t *testing.T) {
			var fault *sectors.FaultError
			if err := losePower(t, sparse, false); !errors.As(err, &fault) {
				t.Errorf("that nothing was flushed is not found: %v", err)
			}
		})
	}
}

func losePower(t *testing.T, sparse, flushed bool) error {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	r, d := newRaw(t, t.TempDir(), "layer", sparse, 6)
	fs, err := plainfs.New(t.TempDir(), plainfs.Options{Type: "ext4", Size: 16 << 30, Mkfs: []string{"-q"}})
	check(t, err)
	t.Cleanup(func() { check(t, fs.Close()) })
	cfg := blockd.Config{Dir: fs.Dir, Devices: []blockd.Device{d}}
	check(t, cfg.Prepare())
	newer, dropped := 0, int64(0)
	var restacks atomic.Int32
	n := kills(t)
	for i := range n {
		o, err := cfg.Open(t.Context(), r.id)
		check(t, err)
		st := o.Stats()
		dropped += st.Dropped
		floor := r.load.Durable()
		if i == 0 { // what is below was not written through the layer
			floor = r.load.Acknowledged()
		}
		state, err := r.load.Check(sectors.WithContext(t.Context(), o), floor)
		if err != nil {
			o.Close() //nolint:errcheck // the other error tells more
			return fmt.Errorf("after %d losses: %w", i, err)
		}
		newer += state.Newer
		r.load.Adopt(state)
		host := &host{flushes: flushed}
		cancel, wait := background(t, func(ctx context.Context) error {
			return r.load.Run(ctx, poweredDisk{layerDisk{context.WithoutCancel(ctx), o.Upper}, host})
		})
		pause(20, 150)
		restack := func(ctx context.Context, next lsmt.UpperFiles) error {
			_, err := o.Restack(ctx, next)
			return err
		}
		restacking := make(chan struct{})
		go func() {
			defer close(restacking)
			if i%3 == 0 { // the power goes in the middle, or after
				if _, err := cfg.Restack(context.Background(), d, restack); err == nil {
					restacks.Add(1)
				} else if !host.failing.Load() {
					t.Error(err)
				}
			}
		}()
		pause(0, 60)
		cancel()
		host.failing.Store(true)
		check(t, fs.LosePower())
		wait()
		<-restacking
		o.Close() //nolint:errcheck // it can't write any more
		check(t, errors.Join(fs.Unmount(), fs.Mount()))
		check(t, reboot(filepath.Join(fs.Dir, "layers", r.id)))
	}
	t.Logf("%d losses; %d sectors were newer than what was flushed; %d records dropped; %d restacks; writes, discards, zeroes, flushes: %v",
		n, newer, dropped, restacks.Load(), r.load.Done())
	return nil
}

// reboot makes the layers in a folder those of an earlier boot. An index file says
// in the last sector of its first block in which boot it was opened, and a layer
// trusts the kernel to have all that a process of the same boot has written.
func reboot(dir string) error {
	const at, magic, bootSize = 4096 - 512, "REPRISE\x01", 16
	names, err := filepath.Glob(filepath.Join(dir, "index-*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		p := make([]byte, len(magic)+bootSize)
		_, err = f.ReadAt(p, at)
		if err == nil && string(p[:len(magic)]) == magic {
			_, err = f.WriteAt([]byte("another boot    "), at+int64(len(magic)))
		}
		if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

// host is what loses its power.
type host struct {
	failing atomic.Bool
	flushes bool
}

// poweredDisk says that a flush has failed if its answer comes when the power is
// about to go: ext4 may answer an fsync with success that its end has overtaken.
type poweredDisk struct {
	layerDisk
	host *host
}

func (d poweredDisk) Flush() error {
	if !d.host.flushes {
		return nil
	}
	err := d.layerDisk.Flush()
	if err == nil && d.host.failing.Load() {
		err = errors.New("the power is failing")
	}
	return err
}
