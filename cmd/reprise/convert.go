package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/registry"
)

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "Make an overlaybd image of an OCI image",
		ArgsUsage: "SRC DST",
		Description: `SRC and DST are each a registry reference (docker.io/library/redis:7), an OCI
image layout (a directory) or an OCI archive (a .tar file), the latter two with
:TAG. docker://, oci: and oci-archive: before them say which.

All platforms are converted unless --platform picks one. The name DST is given
when everything is there; an interrupted conversion that is started again does
not repeat the layers that were finished.`,
		Flags: slices.Concat(registryFlags(), convertFlags(), []cli.Flag{jsonFlag()}),

		OnUsageError: onUsageError,
		Action:       runConvert,
	}
}

func convertFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "platform", Usage: "convert only `OS/ARCH` of a multi-platform image (default: all)"},
		&cli.BoolFlag{Name: "oci", Usage: "keep the source: DST names a copy of it, and the converted image refers to it"},
		&cli.StringFlag{Name: "compression", Usage: "`lz4 or zstd`", Value: "zstd"},
		&cli.StringFlag{Name: "block-size", Usage: "compress blocks of `SIZE`: 4k, 8k, 16k or 32k", Value: "4k"},
		&cli.StringFlag{Name: "vsize", Usage: "`SIZE` of the device, which bounds what a container's image can hold", Value: "64g"},
		&cli.StringSliceFlag{Name: "reuse-from", Usage: "do not convert again what converted `IMAGE` has; repeatable"},
		&cli.StringFlag{Name: "cache-dir", Usage: "`DIR` that remembers converted layers; \"\" is none", Value: defaultCacheDir()},
		&cli.StringFlag{Name: "temp-dir", Usage: "`DIR` for temporary files (default: $TMPDIR or /tmp)"},
		&cli.IntFlag{Name: "workers", Usage: "use `N` processors (default: all)"},
		&cli.IntFlag{Name: "concurrency", Usage: "compress and upload up to `N` layers behind the one that is read", Value: convert.DefaultConcurrency},
		&cli.StringFlag{Name: "max-layer-size", Usage: "refuse layers that decompress to more than `SIZE`", Value: "64g"},
		&cli.Int64Flag{
			Name:  "max-ratio",
			Usage: "refuse layers above 1 GiB that decompress to more than `N` times their size; -1 is no limit",
			Value: convert.DefaultMaxRatio,
		},
		&cli.StringFlag{Name: "upload-chunk", Usage: "upload in pieces of `SIZE` (default: a blob in one request)"},
		&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace DST if it is an archive that exists"},
	}
}

// defaultCacheDir returns the directory below the user's cache, or "".
func defaultCacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "reprise", "converted")
}

// bytesFlag parses a flag that is a size; without a value it is 0.
func bytesFlag(cmd *cli.Command, name string) (int64, error) {
	s := cmd.String(name)
	if s == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(s)
	if err == nil && n < 0 {
		err = errors.New("it is negative")
	}
	if err != nil {
		return 0, usageError{fmt.Errorf("--%s %q is no size: %w", name, s, err)}
	}
	return n, nil
}

// convertConfig reads the flags.
func convertConfig(cmd *cli.Command) (convert.Config, error) {
	cfg := convert.Config{
		Platform:    cmd.String("platform"),
		Referrer:    cmd.Bool("oci"),
		Workers:     cmd.Int("workers"),
		Concurrency: cmd.Int("concurrency"),
		Limits:      convert.Limits{Ratio: cmd.Int64("max-ratio")},
		TempDir:     cmd.String("temp-dir"),
	}
	switch a := cmd.String("compression"); a {
	case "lz4":
		cfg.Compression.Algorithm = zfile.LZ4
	case "zstd":
		cfg.Compression.Algorithm = zfile.ZSTD
	default:
		return cfg, usageError{fmt.Errorf("--compression %q is neither lz4 nor zstd", a)}
	}
	block, err := bytesFlag(cmd, "block-size")
	if err != nil {
		return cfg, err
	}
	cfg.Compression.BlockSize = int(block)
	if cfg.VirtualSize, err = bytesFlag(cmd, "vsize"); err != nil {
		return cfg, err
	}
	if cfg.Limits.LayerSize, err = bytesFlag(cmd, "max-layer-size"); err != nil {
		return cfg, err
	}
	if dir := cmd.String("cache-dir"); dir != "" {
		cfg.Cache = convert.OpenCache(dir)
	}
	return cfg, nil
}

func runConvert(ctx context.Context, cmd *cli.Command) (err error) {
	args := cmd.Args().Slice()
	if len(args) != 2 {
		return usageError{errors.New("convert needs a source and a destination")}
	}
	cfg, err := convertConfig(cmd)
	if err != nil {
		return err
	}
	to, err := destination.Parse(args[1])
	if err != nil {
		return usageError{err}
	}
	chunk, err := bytesFlag(cmd, "upload-chunk")
	if err != nil {
		return err
	}
	client, err := newClient(cmd, chunk)
	if err != nil {
		return err
	}
	images := source.Config{Registry: chain.New(client, chain.Config{Retry: patience}), Platform: cfg.Platform}
	if cfg.Source, err = source.OpenContent(ctx, args[0], images); err != nil {
		return err
	}
	defer closing(cfg.Source, &err)
	if cfg.Destination, err = openDestination(cmd, client, to); err != nil {
		return err
	}
	defer closing(cfg.Destination, &err)
	notes := []string{}
	cfg.Note = func(s string) { notes = append(notes, s) }
	cfg.Known = openKnown(ctx, append([]string{to.Argument()}, cmd.StringSlice("reuse-from")...), images, cfg.Note)
	defer func() {
		for _, k := range cfg.Known {
			err = errors.Join(err, k.Close())
		}
	}()
	if err := cfg.Validate(); err != nil {
		return usageError{err}
	}
	if cfg.Workers > 0 { // also what decompresses and hashes
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cfg.Workers))
	}
	var r *convert.Report
	err = terminal.WithBars(progress(cmd), func(b *terminal.Bars) error {
		cfg.Bars = b
		r, err = convert.Run(ctx, cfg)
		return err
	})
	for _, n := range notes {
		fmt.Fprintf(cmd.Root().ErrWriter, "reprise: note: %s\n", n)
	}
	if err != nil {
		return err
	}
	r.Destination = to.String()
	if cmd.Bool("json") {
		return printJSON(cmd.Root().Writer, r)
	}
	return printConversion(cmd.Root().Writer, r)
}

// openDestination opens what to says.
func openDestination(cmd *cli.Command, client *registry.Client, to destination.Location) (destination.Destination, error) {
	switch to.Kind {
	case source.KindLayout:
		return destination.NewLayout(to.Path, to.Tag)
	case source.KindArchive:
		return destination.NewArchive(to.Path, to.Tag, cmd.Bool("force"))
	}
	return destination.NewRegistry(client, chain.New(client, chain.Config{Retry: patience}), to.Ref)
}

// openKnown opens the images whose layers may be reused: the first, which is
// what the destination is now, if there is one.
func openKnown(ctx context.Context, args []string, cfg source.Config, note func(string)) []*source.Content {
	cfg.Platform = ""
	var all []*source.Content
	for i, arg := range args {
		c, err := source.OpenContent(ctx, arg, cfg)
		switch {
		case err == nil:
			all = append(all, c)
		case i == 0 && (errors.Is(err, fs.ErrNotExist) || errdefs.IsNotFound(err)):
		case ctx.Err() == nil:
			note(fmt.Sprintf("no layers of %s are reused: %v", arg, err))
		}
	}
	return all
}

func printConversion(w io.Writer, r *convert.Report) error {
	fmt.Fprintf(w, "%s@%s\n", r.Destination, r.Tagged)
	if r.Tagged != r.Digest {
		fmt.Fprintf(w, "converted: %s, a referrer of %s\n", r.Digest, r.SourceDigest)
	}
	for _, i := range r.Images {
		fmt.Fprintln(w, strings.TrimSpace(i.Platform+" "+i.Manifest.String()))
	}
	layers, converted, bytes := r.Totals()
	_, err := fmt.Fprintf(w, "%d of %s converted, %s transferred\n", converted, count(layers, "layer"), terminal.Bytes(bytes))
	return err
}
