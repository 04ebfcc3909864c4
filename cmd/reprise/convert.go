package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v3"

	layerconvert "github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
)

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "Make an overlaybd image of an OCI image",
		ArgsUsage: "SRC DST",
		Description: `SRC and DST are each a registry reference (docker.io/library/redis:7), an OCI
image layout (a directory) or an OCI archive (a .tar file), the latter two with
:TAG. docker://, oci: and oci-archive: before them say which. Without that, what
exists is a layout if it is a directory and an archive if it is a file. Of what
does not exist, a DST that ends in .tar is an archive, one that starts with / or .
a layout, and all else a reference: write oci:app or ./app for a layout, app is
docker.io/library/app.

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
		&cli.StringFlag{Name: "compression", Usage: "`lz4 or zstd`", Value: convert.DefaultAlgorithm.String()},
		&cli.StringFlag{Name: "block-size", Usage: "compress blocks of `SIZE`: 4k, 8k, 16k or 32k", Value: units.BytesSize(convert.DefaultBlockSize)},
		&cli.StringFlag{Name: "vsize", Usage: "`SIZE` of the device, which bounds what a container's image can hold", Value: units.BytesSize(layerconvert.DefaultVirtualSize)},
		&cli.StringSliceFlag{Name: "reuse-from", Usage: "do not convert again what converted `IMAGE` has; repeatable"},
		&cli.StringFlag{Name: "cache-dir", Usage: "`DIR` that remembers converted layers; \"\" is none", Value: defaultCacheDir()},
		&cli.StringFlag{Name: "temp-dir", Usage: "`DIR` for temporary files (default: $TMPDIR or /tmp)"},
		&cli.IntFlag{Name: "workers", Usage: "use `N` processors (default: all)", HideDefault: true},
		&cli.IntFlag{Name: "concurrency", Usage: "have up to `N` layers in temporary files: one that is read, the others compressed and uploaded", Value: convert.DefaultConcurrency},
		&cli.StringFlag{Name: "max-layer-size", Usage: "refuse layers that decompress to more than `SIZE`", Value: units.BytesSize(convert.DefaultMaxLayerSize)},
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
