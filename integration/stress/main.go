// Command stress loads file systems on writable devices for a long time with
// little memory: fio, tar and rm, files that are made durable and renamed, all at
// once, in a memory control group; the daemon that serves the devices is in another
// one of the same size. Dirty pages of the file systems then can only be written by a
// process that may need memory to do it. It fails if anything hangs, with the stacks
// of all who wait in the kernel, or if anything is lost or damaged. It needs root and
// fio.
//
// With -together, load and daemon are in one group. That needs CAP_SYS_RESOURCE or
// version 2 of control groups; see docs/device.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/integration/blockd"
	"github.com/reprise-containers/reprise/integration/memgroup"
	"github.com/reprise-containers/reprise/integration/plainfs"
)

// options are what can be chosen.
type options struct {
	time     time.Duration
	memory   int64 // MiB
	silence  time.Duration
	plain    bool
	together bool // load and daemon together
	fsType   string
	dir      string
}

func main() {
	if code, ok := blockd.Child(os.Args); ok {
		os.Exit(code)
	}
	if code, ok := loadChild(os.Args); ok {
		os.Exit(code)
	}
	var o options
	flag.DurationVar(&o.time, "time", 20*time.Minute, "how long")
	flag.Int64Var(&o.memory, "memory", 128, "MiB of memory for the load, and for the daemon")
	flag.DurationVar(&o.silence, "silence", 2*time.Minute, "how long nothing may get done by a part of the load before it counts as hanging")
	flag.BoolVar(&o.plain, "plain", false, "load file systems on plain loop devices instead, to see that the load itself can run")
	flag.BoolVar(&o.together, "together", false, "load and daemon share their memory")
	flag.StringVar(&o.fsType, "fs", "ext4", "file system: ext4 or xfs")
	flag.StringVar(&o.dir, "dir", "", "folder for everything, instead of a temporary one; it has a short name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "stress:", err)
		os.Exit(1)
	}
}

const deviceSize = 1 << 30

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("devices and control groups need root")
	}
	dir, err := os.MkdirTemp(o.dir, "stress")
	if err != nil {
		return err
	}
	r := &round{options: o, dir: dir}
	if err := r.groups(); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = errors.Join(r.group.Remove(), os.RemoveAll(dir))
		}
		if err == nil && r.own != r.group {
			err = r.own.Remove()
		}
	}()
	if o.plain {
		return r.onPlain(ctx)
	}
	return r.onDevices(ctx)
}

// groups makes the control groups.
func (r *round) groups() (err error) {
	name := filepath.Base(r.dir)
	if r.group, err = memgroup.New(name, r.memory<<20); err != nil {
		return err
	}
	if r.own = r.group; !r.together {
		r.own, err = memgroup.New(name+".daemon", r.memory<<20)
	}
	return err
}

// round is one run.
type round struct {
	options
	dir    string
	group  *memgroup.Group // of the load
	own    *memgroup.Group // of the daemon
	daemon *blockd.Daemon  // nil on plain loop devices
}

// onPlain loads file systems that need no daemon.
func (r *round) onPlain(ctx context.Context) error {
	fs, err := plainfs.New(filepath.Join(r.dir, "plain"), plainfs.Options{Type: r.fsType, Size: deviceSize})
	if err != nil {
		return err
	}
	err = r.load(ctx, []string{fs.Dir})
	if err != nil {
		return err
	}
	if err := fs.Unmount(); err != nil {
		return err
	}
	if r.fsType == "ext4" {
		err = fs.Check()
	}
	return errors.Join(err, fs.Close())
}

// onDevices loads the product.
func (r *round) onDevices(ctx context.Context) error {
	cfg := blockd.Config{Dir: r.dir, Group: r.own.Dir, Devices: []blockd.Device{
		{ID: "append", Size: deviceSize, FSType: r.fsType},
		{ID: "sparse", Size: deviceSize, FSType: r.fsType, Sparse: true},
	}}
	err := cfg.Prepare()
	if err != nil {
		return err
	}
	if r.daemon, err = blockd.Start(cfg); err != nil {
		return err
	}
	ready, err := r.daemon.Ready(ctx)
	if err != nil {
		return err
	}
	var roots []string
	for _, path := range ready.Paths {
		roots = append(roots, path)
	}
	if err := r.load(ctx, roots); err != nil {
		// The stacks are printed. Whoever still waits gets an error now.
		cfg.Abort()                                 //nolint:errcheck // the first error tells more
		syscall.Kill(ready.Holder, syscall.SIGKILL) //nolint:errcheck // it may have ended
		r.daemon.Kill()                             //nolint:errcheck // as above
		return err
	}
	if err := r.watched(ctx, "unmounting", func(ctx context.Context) error { return r.daemon.Stop(ctx) }); err != nil {
		return err
	}
	for _, d := range cfg.Devices {
		if err := cfg.Check(ctx, d.ID); err != nil {
			return err
		}
	}
	return nil
}
