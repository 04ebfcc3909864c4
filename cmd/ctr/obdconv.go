package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/obdconv"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// obdconvCommand converts an image through the kernel. Flags and defaults are those
// of the obdconv of accelerated-container-image, so scripts keep working.
func obdconvCommand() *cli.Command {
	return &cli.Command{
		Name:      "obdconv",
		Usage:     "Convert an image that is here to an overlaybd image of ext4 or xfs",
		ArgsUsage: "<src> <dst>",
		Description: `Unpack each layer of an image into a file system on a writable device of the
snapshotter, and name <dst> an image whose layers are what was written to it.

<src> must have been pulled in full, for example with ctr images pull. Of an image
whose lower layers are overlaybd layers already, those stay as they are and the
others are converted on them. A trace that <src> has is dropped. <dst> is not pushed:
ctr push does that.

What the kernel writes is never twice the same, and so is the digest. reprise convert
makes an image of erofs, which is smaller and always the same, without containerd: use
obdconv for images whose containers write to their device, or that are built on.`,
		Flags: slices.Concat(commands.RegistryFlags, []cli.Flag{
			&cli.StringFlag{
				Name: "fstype", Value: obdconv.DefaultFSType,
				Usage: "File system, ext4 or xfs, and options for mount and mkfs: 'type;mount,options;mkfs options'",
			},
			&cli.StringFlag{Name: "dbstr", Usage: "Is refused: layers are not looked up in a database"},
			&cli.StringFlag{Name: "algorithm", Usage: "Compression, lz4 or zstd (default: zstd)"},
			&cli.IntFlag{Name: "bs", Usage: "Size of a compressed block in KB, one of 4, 8, 16 and 32 (default: 4)"},
			&cli.IntFlag{Name: "vsize", Usage: "Size of the device in GB", Value: obdconv.DefaultVirtualSize},
			&cli.StringFlag{
				Name: "snapshotter", Usage: "Snapshotter that has the devices", Value: defaultSnapshotter,
				Sources: cli.EnvVars("CONTAINERD_SNAPSHOTTER"),
			},
			&cli.StringFlag{Name: "temp-dir", Usage: "Directory for blobs on their way (default: the system's)"},
		}),
		DisableSliceFlagSeparator: true,
		Action:                    runObdconv,
	}
}

func runObdconv(ctx context.Context, cmd *cli.Command) (err error) {
	cfg, err := obdconvConfig(cmd)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, ctx, cancel, err := commands.NewClient(ctx, cmd)
	if err != nil {
		return err
	}
	defer cancel()
	defer func() { _ = client.Close() }() // nothing is written to it any more
	cfg.Client = client
	begin := time.Now()
	r, err := obdconvShown(ctx, cmd, cfg)
	if err != nil {
		return err
	}
	return printObdconv(cmd.Root().Writer, r, time.Since(begin))
}

// obdconvConfig reads the flags.
func obdconvConfig(cmd *cli.Command) (obdconv.Config, error) {
	if cmd.Args().Len() != 2 {
		return obdconv.Config{}, errors.New("obdconv takes an image that is here and the name of what is made of it, for example app:1.0 app:1.0-obd")
	}
	if cmd.String("dbstr") != "" {
		return obdconv.Config{}, errors.New("--dbstr: layers are not looked up in a database; " +
			"reprise convert knows layers that were converted before by --cache-dir and --reuse-from")
	}
	if size := cmd.Int("vsize"); size < 1 {
		return obdconv.Config{}, fmt.Errorf("--vsize %d: a device has a GB at least", size)
	}
	cfg := obdconv.Config{
		Source: cmd.Args().Get(0), Target: cmd.Args().Get(1),
		Snapshotter: cmd.String("snapshotter"),
		FSType:      cmd.String("fstype"),
		VirtualSize: cmd.Int("vsize"),
		TempDir:     cmd.String("temp-dir"),
	}
	switch name := cmd.String("algorithm"); name {
	case "":
	case "lz4":
		cfg.Compression.Algorithm = zfile.LZ4
	case "zstd":
		cfg.Compression.Algorithm = zfile.ZSTD
	default:
		return cfg, fmt.Errorf("--algorithm %q is neither lz4 nor zstd", name)
	}
	switch bs := cmd.Int("bs"); bs {
	case 0, 4, 8, 16, 32:
		cfg.Compression.BlockSize = bs << 10
	default:
		return cfg, fmt.Errorf("--bs %d is not one of 4, 8, 16 and 32 (KB); overlaybd's own reader can't read every block of 64", bs)
	}
	return cfg, nil
}

// obdconvShown converts with bars, if somebody sees them.
func obdconvShown(ctx context.Context, cmd *cli.Command, cfg obdconv.Config) (r *obdconv.Report, err error) {
	var (
		mu    sync.Mutex
		notes []string
	)
	cfg.Note = func(s string) {
		mu.Lock()
		defer mu.Unlock()
		notes = append(notes, s)
	}
	err = terminal.WithBars(barsOf(cmd), func(b *terminal.Bars) (err error) {
		cfg.Bars = b
		r, err = obdconv.Run(ctx, cfg)
		return err
	})
	printNotes(cmd, notes)
	return r, err
}

// barsOf returns where bars can be shown, nil for nowhere: debug messages and bars
// destroy each other.
func barsOf(cmd *cli.Command) io.Writer {
	if terminal.Is(os.Stderr) && !cmd.Bool("debug") {
		return os.Stderr
	}
	return nil
}

func printNotes(cmd *cli.Command, notes []string) {
	for _, n := range notes {
		fmt.Fprintf(cmd.Root().ErrWriter, "ctr: note: %s\n", n)
	}
}

// printObdconv writes for people what a conversion made.
func printObdconv(w io.Writer, r *obdconv.Report, elapsed time.Duration) error {
	fmt.Fprintf(w, "%s@%s\n", r.Name, r.Target)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SOURCE\tSIZE\tLAYER\tSIZE")
	converted, size := 0, int64(0)
	for _, l := range r.Layers {
		if l.Kept {
			fmt.Fprintf(tw, "%s\t%s\tkept\t\n", short(l.Source), terminal.Bytes(l.SourceSize))
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", short(l.Source), terminal.Bytes(l.SourceSize), short(l.Digest), terminal.Bytes(l.Size))
		converted, size = converted+1, size+l.Size
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d layers converted to %s in %.1fs\n", converted, len(r.Layers), terminal.Bytes(size), elapsed.Seconds())
	return err
}
