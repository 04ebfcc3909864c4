package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/layer"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

func layerCommand() *cli.Command {
	return &cli.Command{
		Name:  "layer",
		Usage: "Make, seal, commit, merge and grow layers that are files",
		Commands: []*cli.Command{
			layerCreateCommand(),
			layerCommitCommand(),
			layerSealCommand(),
			layerMergeCommand(),
			layerGrowCommand(),
		},
	}
}

// identityFlags say what a layer is to say about itself.
func identityFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "uuid", Usage: "`UUID` of the layer"},
		&cli.StringFlag{Name: "parent", Usage: "`UUID` of the layer below"},
		&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "`TEXT` of up to 256 bytes to keep in the layer"},
	}
}

// identity returns what the flags say.
func identity(cmd *cli.Command) lsmt.Identity {
	return lsmt.Identity{UUID: cmd.String("uuid"), Parent: cmd.String("parent"), Tag: cmd.String("message")}
}

// compressionNone is the value of --compression for no ZFile.
const compressionNone = "none"

// outputFlags say where a committed layer is written, and how.
func outputFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the layer to `FILE`", Required: true},
		&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace FILE if it exists"},
		&cli.StringFlag{Name: "compression", Usage: "`lz4, zstd` or none", Value: convert.DefaultAlgorithm.String()},
		&cli.StringFlag{Name: "block-size", Usage: "compress blocks of `SIZE`: 4k, 8k, 16k or 32k", Value: units.BytesSize(convert.DefaultBlockSize)},
		&cli.BoolFlag{Name: "no-tar", Usage: "write no tar archive around it; a layer in a registry is in one"},
		&cli.BoolFlag{Name: "no-chunks", Usage: "append no chunk table to the archive"},
		&cli.IntFlag{Name: "workers", Usage: "compress on `N` processors (default: all)", HideDefault: true},
	}, identityFlags(), []cli.Flag{
		&cli.BoolFlag{Name: "progress", Usage: "show progress even if standard error is not a terminal"},
		jsonFlag(),
	})
}

// output returns what the flags say.
func output(cmd *cli.Command) (layer.Output, error) {
	to := layer.Output{Path: cmd.String("output"), Force: cmd.Bool("force"), Identity: identity(cmd)}
	to.Form.Tar = !cmd.Bool("no-tar")
	to.Form.Chunks = to.Form.Tar && !cmd.Bool("no-chunks")
	if cmd.String("compression") == compressionNone {
		return to, nil
	}
	var z zfile.Options
	var err error
	if z.Algorithm, err = algorithm(cmd.String("compression")); err != nil {
		return to, usageError{fmt.Errorf("--compression %w, nor %s", err, compressionNone)}
	}
	block, err := bytesFlag(cmd, "block-size")
	if err != nil {
		return to, err
	}
	z.BlockSize, z.Workers = int(block), cmd.Int("workers")
	if err := z.Validate(); err != nil {
		return to, usageError{err}
	}
	to.Form.Compression = &z
	return to, nil
}

// algorithm returns the compression of that name.
func algorithm(name string) (zfile.Algorithm, error) {
	for _, a := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		if name == a.String() {
			return a, nil
		}
	}
	return 0, fmt.Errorf("%q is neither %v nor %v", name, zfile.LZ4, zfile.ZSTD)
}

// printWritten says what was written.
func printWritten(cmd *cli.Command, l layer.Written) error {
	out := cmd.Root().Writer
	if cmd.Bool("json") {
		return printJSON(out, l)
	}
	_, err := fmt.Fprintf(out, "%s: %s, %s of %s\n", l.Path, l.Digest, terminal.Bytes(l.Size), terminal.Bytes(l.Stream))
	return err
}

// warn says what somebody should know.
func warn(w io.Writer, text string) {
	if text != "" {
		fmt.Fprintf(w, "reprise: warning: %s\n", text)
	}
}
