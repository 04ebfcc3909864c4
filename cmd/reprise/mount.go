package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/mount"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "Mount an image read-only, without containerd, until interrupted",
		ArgsUsage: "IMAGE DIR",
		Description: imageHelp + `

What is read of an image in a registry is kept in a cache, in a temporary
directory unless --cache-dir names one to keep. Interrupt to unmount. If the
command is killed, reads of DIR wait; give the same command again to go on.`,
		Flags: slices.Concat(commonFlags(), []cli.Flag{
			&cli.StringFlag{Name: "cache-dir", Usage: "keep what was fetched in `DIR`"},
		}),
		OnUsageError: onUsageError,
		Action:       runMount,
	}
}

func runMount(ctx context.Context, cmd *cli.Command) error {
	args := cmd.Args().Slice()
	if len(args) < 2 {
		return usageError{errors.New("mount needs an image and a directory")}
	}
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root: run it with sudo, or use dump and mount the file")
	}
	target, err := directory(args[len(args)-1])
	if err != nil {
		return err
	}
	c, err := openCache(cmd.String("cache-dir"))
	if err != nil {
		return err
	}
	return errors.Join(mountCached(ctx, cmd, args[:len(args)-1], target, c.Cache), c.close())
}

// directory returns the absolute path of dir without symbolic links.
func directory(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", err
	}
	st, err := os.Stat(path)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is not a directory", dir)
	}
	return path, err
}

// tempCache is a cache whose directory may go with it.
type tempCache struct {
	*cache.Cache
	remove string // "" if the directory stays
}

func openCache(dir string) (tempCache, error) {
	t := tempCache{}
	if dir == "" {
		temp, err := os.MkdirTemp("", "reprise-cache-")
		if err != nil {
			return t, err
		}
		dir, t.remove = temp, temp
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		t.Cache, err = cache.Open(cache.Config{Dir: dir})
	}
	if err != nil && t.remove != "" {
		os.RemoveAll(t.remove)
	}
	return t, err
}

func (t tempCache) close() error {
	err := t.Close()
	if t.remove != "" {
		err = errors.Join(err, os.RemoveAll(t.remove))
	}
	return err
}

func mountCached(ctx context.Context, cmd *cli.Command, args []string, target string, c *cache.Cache) (err error) {
	// A mount holds reads while a registry is away, as a disk would.
	ch, err := newChain(cmd, chain.Config{Cache: c, Retry: blob.RetryConfig{}})
	if err != nil {
		return err
	}
	img, err := source.OpenAll(ctx, args, source.Config{Registry: ch, Platform: cmd.String("platform")})
	if err != nil {
		return err
	}
	defer closing(img, &err)
	disk, err := openDisk(ctx, img)
	if err != nil {
		return err
	}
	ahead := readahead.New(disk, readahead.DefaultConfig)
	sctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	g.Go(func() error { return ahead.Run(sctx) })
	err = serveMount(ctx, cmd, img, ahead, target, c)
	stop()
	if e := g.Wait(); !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	return err
}

// serveMount mounts d until ctx ends, with a line that shows what is read.
func serveMount(ctx context.Context, cmd *cli.Command, img *source.Image, d device.Device, target string, c *cache.Cache) error {
	out, log, line := cmd.Root().Writer, cmd.Root().ErrWriter, progress(cmd)
	again := make(chan os.Signal, 1)
	var stats atomic.Pointer[func() fusedev.DeviceStats]
	text := func() string {
		if f := stats.Load(); f != nil {
			return traffic((*f)(), c.Stats())
		}
		return "mounting..."
	}
	cfg := mount.Config{
		Device: d,
		ID:     mount.ID(img),
		Target: target,
		Mounted: func(i fusedev.MountInfo) {
			terminal.Clear(line)
			fmt.Fprintf(out, "%s is mounted on %s (%s, %s); interrupt to unmount\n", img.Name, target, i.FSType, terminal.Bytes(d.Size()))
		},
		Stats: func(f func() fusedev.DeviceStats) { stats.Store(&f) },
		Busy: func(error) {
			terminal.Clear(line)
			signal.Notify(again, os.Interrupt, syscall.SIGTERM)
			fmt.Fprintf(log, "%s is in use and will be unmounted when it is not; interrupt again to cut its users off\n", target)
		},
		GiveUp: again,
	}
	defer signal.Stop(again)
	err := terminal.During(line, text, func() error { return mount.Run(ctx, cfg) })
	return errors.Join(err, summary(out, target, stats.Load(), c))
}

// traffic formats what the kernel read and what was fetched for it.
func traffic(d fusedev.DeviceStats, c cache.Stats) string {
	s := fmt.Sprintf("read %s in %d requests, fetched %s", terminal.Bytes(d.Bytes), d.Requests, terminal.Bytes(c.BytesFetched))
	if n := c.Hits + c.Misses; n > 0 {
		s += fmt.Sprintf(" (%d misses, %.0f%% hits)", c.Misses, 100*float64(c.Hits)/float64(n))
	}
	return s
}

func summary(w io.Writer, target string, stats *func() fusedev.DeviceStats, c *cache.Cache) error {
	if stats == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", target, traffic((*stats)(), c.Stats()))
	return err
}
