package fusedev_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// diskConfig tells a test daemon what to do with one disk.
type diskConfig struct {
	Server fusedev.Config
	File   string // of the disk
	Target string // where to mount it; "": a loop device
	Freeze bool   // the mount, for ever
}

// diskMain serves device d until it is killed. It prints a line when it has done
// what it was told.
func diskMain(file string) error {
	p, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var cfg diskConfig
	if err := json.Unmarshal(p, &cfg); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := fusedev.Open(ctx, cfg.Server)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx) }()
	go func() {
		if err := cfg.use(ctx, s); err != nil {
			served <- err
		}
	}()
	return <-served
}

// use adds the disk and mounts it, or attaches a loop device.
func (cfg diskConfig) use(ctx context.Context, s *fusedev.Server) error {
	d, err := openDisk(cfg.File)
	if err != nil {
		return err
	}
	isNew := !slices.Contains(s.Known(), "d")
	if err := s.Add(ctx, "d", d); err != nil {
		return err
	}
	s.Ready()
	if err := s.Tidy(ctx); err != nil {
		return err
	}
	if isNew {
		if err := s.Format(ctx, "d", "ext4", ""); err != nil {
			return err
		}
	}
	if cfg.Target == "" {
		_, err = s.Loop(ctx, "d")
	} else {
		err = s.Mount(ctx, "d", fusedev.Mount{Target: cfg.Target, Writable: true})
	}
	if err != nil {
		return err
	}
	if cfg.Freeze {
		return s.Freeze(ctx, cfg.Target, func() error {
			fmt.Println("frozen")
			select {}
		})
	}
	fmt.Println("ready")
	return nil
}

// startDisk starts a daemon for a disk and waits until it has done what cfg
// says.
func (s *site) startDisk(t testing.TB, cfg diskConfig) *daemon {
	t.Helper()
	cfg.Server = s.cfg
	p, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(s.dir, "disk.json")
	if err := os.WriteFile(name, p, 0o600); err != nil {
		t.Fatal(err)
	}
	d := startProgram(t, "test-disk", name)
	d.waitReady(t)
	return d
}

// loops returns the loop devices on the site's devices.
func (s *site) loops(t testing.TB) []kernel.Loop {
	t.Helper()
	loops, err := kernel.Loops(filepath.Join(s.cfg.RuntimeDir, "devices"))
	if err != nil {
		t.Fatal(err)
	}
	return loops
}

// oneLoop returns the loop device that there is.
func (s *site) oneLoop(t testing.TB) string {
	t.Helper()
	loops := s.loops(t)
	if len(loops) != 1 || loops[0].Autoclear {
		t.Fatalf("loop devices: %+v", loops)
	}
	return loops[0].Dev
}

// TestLoopSurvivesDaemons writes through a loop device while the daemons below it
// are killed.
func TestLoopSurvivesDaemons(t *testing.T) {
	site := newSite(t)
	file, target := site.newDisk(t, "disk", 1<<30), site.target(t, "m")
	d := site.startDisk(t, diskConfig{File: file})
	dev := site.oneLoop(t)
	checkQueue(t, dev)
	shell(t, `mount -o discard "$1" "$2"`, dev, target)
	w := startWriter(t, target)
	for range rounds(t, 10) {
		n := w.cycles.Load()
		waitFor(t, "progress", func() bool { return w.cycles.Load() > n+3 })
		d.kill(t)
		d = site.startDisk(t, diskConfig{File: file})
		if got := site.oneLoop(t); got != dev {
			t.Fatalf("loop device is %s, was %s", got, dev)
		}
	}
	w.kill(t)
	d.kill(t)

	s := site.open(t)
	addDisk(t, s, "d", file)
	s.Ready()
	if loops, err := s.Loops(); err != nil || len(loops) != 1 || loops[0] != (fusedev.LoopInfo{ID: "d", Dev: dev}) {
		t.Errorf("Loops() = %v, %v", loops, err)
	}
	if err := s.Unloop(t.Context(), "d"); !errors.Is(err, fusedev.ErrBusy) {
		t.Errorf("Unloop of a mounted device = %v, want ErrBusy", err)
	}
	if got := site.oneLoop(t); got != dev {
		t.Errorf("loop device is %s after Unloop was refused, was %s", got, dev)
	}
	shell(t, `cd "$1"; sha256sum -c --quiet sums; cd /; umount "$1"`, target)
	for range 2 {
		if err := s.Unloop(t.Context(), "d"); err != nil {
			t.Errorf("Unloop = %v", err)
		}
	}
	if loops := site.loops(t); len(loops) != 0 {
		t.Errorf("loop devices are left: %v", loops)
	}
	fsck(t, "ext4", file)
}

// startWriter starts a process that writes files with their sums into dir until
// it is killed, and prints a line for each that is on the disk.
func startWriter(t testing.TB, dir string) *daemon {
	t.Helper()
	script := filepath.Join(t.TempDir(), "writer")
	err := os.WriteFile(script, []byte(`set -e
		cd "$1"
		for i in $(seq 100000); do
			dd if=/dev/urandom of=f$i bs=64k count=3 conv=fsync status=none
			sha256sum f$i >>sums
			sync sums
			echo $i
		done`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w := startCommand(t, "sh", script, dir)
	w.waitReady(t)
	return w
}

// TestLoopOfRemovedDevice takes devices away under their loop devices.
func TestLoopOfRemovedDevice(t *testing.T) {
	site := newSite(t)
	site.cfg.Patience = 100e6
	s := site.open(t)
	var devs []string
	for range 2 {
		addDisk(t, s, "d", site.newDisk(t, "disk", 1<<20))
		dev, err := s.Loop(t.Context(), "d")
		if err != nil {
			t.Fatal(err)
		}
		devs = append(devs, dev)
		// The next one is another device of the same ID.
		if err := s.Remove(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "end of the first loop device", func() bool { return len(site.loops(t)) == 1 })
	held, err := os.Open(devs[1]) // an open does not read
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unloop(t.Context(), "d"); !errors.Is(err, fusedev.ErrBusy) {
		t.Errorf("Unloop = %v, want ErrBusy", err)
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if loops := site.loops(t); len(loops) != 1 || !loops[0].Autoclear {
		t.Errorf("loop devices while one is open: %+v", loops)
	}
	held.Close()
	waitFor(t, "end of the second loop device", func() bool { return len(site.loops(t)) == 0 })
}

// TestLoopIsShared formats and mounts a device through the loop device that was
// handed out.
func TestLoopIsShared(t *testing.T) {
	site := newSite(t)
	site.cfg.Patience = 300e6
	s, target := site.open(t), site.target(t, "m")
	addDisk(t, s, "d", site.newDisk(t, "disk", 64<<20))
	dev, err := s.Loop(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Format(t.Context(), "d", "ext4", ""); err != nil {
			t.Fatal(err)
		}
		mountDisk(t, s, target)
		shell(t, `test ! -e "$1/f"; echo 1 >"$1/f"`, target)
		if err := s.Format(t.Context(), "d", "ext4", ""); !errors.Is(err, fusedev.ErrBusy) {
			t.Errorf("Format of a mounted device = %v", err)
		}
		if err := s.Unloop(t.Context(), "d"); !errors.Is(err, fusedev.ErrBusy) {
			t.Errorf("Unloop of a mounted device = %v", err)
		}
		if err := s.Unmount(t.Context(), target); err != nil {
			t.Errorf("Unmount = %v", err)
		}
		if got := site.oneLoop(t); got != dev {
			t.Errorf("loop device is %s, was %s", got, dev)
		}
	}
	if err := s.Unloop(t.Context(), "d"); err != nil {
		t.Error(err)
	}
}

// TestReadOnlyLoop attaches a loop device to a device that cannot be written.
func TestReadOnlyLoop(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	image, err := daemonDevice{Image: makeImage(t, "ext4", t.TempDir())}.open()
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, "image", image)
	dev, err := s.Loop(t.Context(), "image")
	if err != nil {
		t.Fatal(err)
	}
	if got := shell(t, `cat /sys/block/$1/ro`, filepath.Base(dev)); got != "1" {
		t.Errorf("%s is writable", dev)
	}
	// A mount of it has a loop device of its own.
	target := site.target(t, "m")
	if err := s.Mount(t.Context(), "image", fusedev.Mount{Target: target}); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Loop(t.Context(), "image"); err != nil || again != dev {
		t.Errorf("second Loop = %q, %v; the first was %s", again, err, dev)
	}
	if err := s.Unmount(t.Context(), target); err != nil {
		t.Error(err)
	}
	if err := s.Unloop(t.Context(), "image"); err != nil {
		t.Error(err)
	}
}

// TestLoopOfLostServer kills holder and daemon: the next daemon takes the loop
// device away.
func TestLoopOfLostServer(t *testing.T) {
	site := newSite(t)
	d := site.startDisk(t, diskConfig{File: site.newDisk(t, "disk", 64<<20)})
	site.oneLoop(t)
	killBoth(t, site, d)
	site.open(t)
	waitFor(t, "end of the loop device", func() bool { return len(site.loops(t)) == 0 })
}
