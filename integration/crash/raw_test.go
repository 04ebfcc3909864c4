package crash_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/blockd"
	"github.com/reprise-containers/reprise/integration/load/sectors"
)

const (
	rawSize    = 64 << 20
	rawWorkers = 12
)

// raw is a device without a file system, its load, and pictures of it.
type raw struct {
	id   string
	load *sectors.Load
	disk *sectors.Opened
	// cancel tells the load to end, wait waits for that, too.
	cancel, wait func()

	pictures []picture
	taken    int
	restacks int
}

// picture is a commit that was asked for.
type picture struct {
	floor sectors.Floor // before that
	done  chan committed
}

type committed struct {
	layers []string
	err    error
}

// newRaw makes a device over a layer, which its load has written.
func newRaw(t testing.TB, dir, id string, sparse bool, seed uint64) (*raw, blockd.Device) {
	t.Helper()
	l, err := sectors.New(rawSize, rawWorkers, seed)
	check(t, err)
	disk, layer := filepath.Join(dir, id+".disk"), filepath.Join(dir, id+".layer")
	check(t, os.WriteFile(disk, nil, 0o600))
	check(t, os.Truncate(disk, rawSize))
	d := open(t, disk)
	_, wait := background(t, func(ctx context.Context) error { return l.Run(ctx, d) })
	for l.Done()[sectors.Write] < 400 {
		time.Sleep(time.Millisecond)
	}
	wait()
	check(t, d.Close())
	check(t, blockd.CommitDisk(t.Context(), disk, layer))
	return &raw{id: id, load: l}, blockd.Device{ID: id, Sparse: sparse, Size: rawSize, Layers: []string{layer}}
}

// begin starts the load.
func (r *raw) begin(t testing.TB, s *site) {
	t.Helper()
	r.disk = open(t, s.wait(t).Paths[r.id])
	r.cancel, r.wait = background(t, func(ctx context.Context) error { return r.load.Run(ctx, r.disk) })
}

// end ends the load.
func (r *raw) end(t testing.TB) {
	t.Helper()
	if r.wait != nil {
		r.wait()
		check(t, r.disk.Close())
		r.wait = nil
	}
}

func (r *raw) busy() map[string]int {
	n := map[string]int{}
	for k, m := range r.load.Busy() {
		n[sectors.Kind(k).String()] += m
	}
	return n
}

// verify compares the device with all that was acknowledged.
func (r *raw) verify(t testing.TB, s *site) {
	t.Helper()
	d := open(t, s.wait(t).Paths[r.id])
	defer d.Close()
	if _, err := r.load.Check(d, r.load.Acknowledged()); err != nil {
		t.Fatalf("%s: %v", r.id, err)
	}
}

// verifyFiles compares the files of the device, which nobody serves, and goes on
// with what they hold of what was cut off.
func (r *raw) verifyFiles(t testing.TB, s *site) {
	t.Helper()
	o, err := s.cfg.Open(t.Context(), r.id)
	check(t, err)
	state, err := r.load.Check(sectors.WithContext(t.Context(), o), r.load.Acknowledged())
	if err := errors.Join(err, o.Close()); err != nil {
		t.Fatalf("%s: %v", r.id, err)
	}
	r.load.Adopt(state)
}

// ask asks the daemon for a commit or a restacking, whose end it may not see.
func (r *raw) ask(t testing.TB, s *site) {
	d := s.daemon
	switch rand.IntN(3) {
	case 0:
		go func() {
			if d.Restack(context.Background(), r.id) == nil {
				r.restacks++
			}
		}()
	case 1:
		r.taken++
		p := picture{r.load.Acknowledged(), make(chan committed, 1)}
		file := filepath.Join(s.cfg.Dir, fmt.Sprintf("%s.commit-%d", r.id, r.taken))
		go func() {
			layers, err := d.Commit(context.Background(), r.id, file)
			p.done <- committed{layers, err}
		}()
		r.pictures = append(r.pictures, p)
	}
}

// look checks the pictures that were finished, and returns how many.
func (r *raw) look(t testing.TB) (n int) {
	t.Helper()
	for _, p := range r.pictures {
		c := <-p.done
		if errors.Is(c.err, blockd.ErrEnded) {
			continue
		}
		if c.err != nil {
			t.Fatal(c.err)
		}
		n++
		layers, err := blockd.OpenLayers(t.Context(), c.layers)
		check(t, err)
		if _, err := r.load.Check(sectors.WithContext(t.Context(), layers), p.floor); err != nil {
			t.Fatalf("picture %d of %s: %v", n, r.id, err)
		}
		layers.Close()
		check(t, os.Remove(c.layers[len(c.layers)-1]))
	}
	r.pictures = nil
	return n
}

// TestKillRaw kills the daemon under load on devices without a file system, while
// it commits and restacks, with all requests that were in flight sent again to the
// successor.
func TestKillRaw(t *testing.T) {
	s, devices := rawSite(t)
	s.start(t)
	for _, r := range devices {
		r.begin(t, s)
	}
	pictures := 0
	for i := range kills(t) {
		// Sometimes before the successor has anything, or has even opened.
		if rand.IntN(4) > 0 {
			s.wait(t)
			for _, r := range devices {
				r.ask(t, s)
			}
		}
		pause(0, 250)
		s.kill(t, func() map[string]int { return busy(devices) })
		pause(0, 20)
		s.start(t)
		if i%8 == 7 {
			s.wait(t)
			for _, r := range devices {
				r.end(t)
				r.verify(t, s)
				pictures += r.look(t)
				r.begin(t, s)
			}
		}
	}
	for _, r := range devices {
		s.wait(t)
		r.end(t)
		r.verify(t, s)
		pictures += r.look(t)
		t.Logf("%s: writes, discards, zeroes, flushes: %v; %d restacks", r.id, r.load.Done(), r.restacks)
	}
	t.Logf("%d kills with %d requests in flight, %v; %d pictures checked", s.killed, s.inFlight, s.doing, pictures)
	if s.inFlight == 0 {
		t.Error("no request was in flight at any kill")
	}
	finish(t, s, devices)
}

// rawSite makes a site with devices of both kinds.
func rawSite(t testing.TB) (*site, []*raw) {
	t.Helper()
	dir := t.TempDir()
	appended, a := newRaw(t, dir, "append", false, 1)
	sparse, b := newRaw(t, dir, "sparse", true, 2)
	return newSite(t, a, b), []*raw{appended, sparse}
}

func busy(devices []*raw) map[string]int {
	n := map[string]int{}
	for _, r := range devices {
		for k, m := range r.busy() {
			n[k] += m
		}
	}
	return n
}

// finish stops the daemon and checks the files, open and sealed.
func finish(t testing.TB, s *site, devices []*raw) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	check(t, s.daemon.Stop(ctx))
	s.holder = 0
	for _, r := range devices {
		r.verifyFiles(t, s)
		layers, err := s.cfg.Seal(t.Context(), r.id)
		check(t, err)
		m, err := blockd.OpenLayers(t.Context(), layers)
		check(t, err)
		if _, err := r.load.Check(sectors.WithContext(t.Context(), m), r.load.Acknowledged()); err != nil {
			t.Errorf("%s, sealed: %v", r.id, err)
		}
		m.Close()
	}
}

// TestRebootRaw takes the devices away under load, and goes on from their files.
func TestRebootRaw(t *testing.T) {
	s, devices := rawSite(t)
	for range max(kills(t)/4, 3) {
		s.start(t)
		for _, r := range devices {
			r.begin(t, s)
			r.ask(t, s)
		}
		pause(50, 400)
		for _, r := range devices {
			r.cancel()
		}
		s.reboot(t, func() map[string]int { return busy(devices) }, func() {
			for _, r := range devices {
				r.end(t)
			}
		})
		for _, r := range devices {
			r.look(t)
			r.verifyFiles(t, s)
		}
	}
	t.Logf("%d losses of the device", s.killed)
	s.start(t)
	s.wait(t)
	finish(t, s, devices)
}

// TestKillSealing kills the daemon while it detaches and seals devices, which
// can be written afterwards.
func TestKillSealing(t *testing.T) {
	s, devices := rawSite(t)
	s.start(t)
	sealed := 0
	for range max(kills(t)/4, 5) {
		for _, r := range devices {
			r.begin(t, s)
		}
		pause(20, 150)
		done := make(chan error, len(devices))
		for _, r := range devices {
			r.end(t)
			go func() { done <- s.daemon.Seal(context.Background(), r.id) }()
		}
		pause(0, 40)
		s.kill(t, func() map[string]int { return nil })
		for range devices {
			switch err := <-done; {
			case err == nil:
				sealed++
			case !errors.Is(err, blockd.ErrEnded):
				t.Fatal(err)
			}
		}
		s.start(t)
		s.wait(t)
		for _, r := range devices {
			r.verify(t, s)
		}
	}
	t.Logf("%d kills; %d seals were finished", s.killed, sealed)
	finish(t, s, devices)
}
