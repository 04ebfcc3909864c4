package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/check"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "Verify every checksum and rule of an image and say what is wrong where",
		ArgsUsage: "IMAGE",
		Description: imageHelp + `

Every byte of every layer is read. Warnings are about what does not keep the
image from being read right. Exit status 1 means that something is wrong.`,
		Flags:        slices.Concat(commonFlags(), []cli.Flag{jsonFlag()}),
		OnUsageError: onUsageError,
		Action:       runCheck,
	}
}

func runCheck(ctx context.Context, cmd *cli.Command) (err error) {
	img, err := openImage(ctx, cmd, cmd.Args().Slice())
	if err != nil {
		return err
	}
	defer closing(img, &err)
	var done atomic.Int64
	total := size(img)
	text := func() string {
		return fmt.Sprintf("%s of %s checked", terminal.Bytes(done.Load()), terminal.Bytes(total))
	}
	var r *check.Result
	err = terminal.During(progress(cmd), text, func() error {
		var err error
		r, err = check.Image(ctx, img, check.Config{Progress: func(n int64) { done.Add(n) }})
		return err
	})
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		err = printJSON(cmd.Root().Writer, r)
	} else {
		err = printCheck(cmd.Root().Writer, r)
	}
	if err == nil && r.Errors > 0 {
		err = fmt.Errorf("%s: %s", r.Name, count(r.Errors, "problem"))
	}
	return err
}

// size returns the bytes of all layers.
func size(img *source.Image) int64 {
	n := int64(0)
	for _, l := range img.Layers {
		n += l.Size()
	}
	for _, l := range img.Stale {
		n += l.Size()
	}
	if img.Trace != nil {
		n += img.Trace.Size()
	}
	return n
}

func printCheck(w io.Writer, r *check.Result) error {
	for i, l := range r.Layers {
		what := fmt.Sprintf("layer %d", i)
		if l.Trace {
			what = "trace"
		}
		fmt.Fprintf(w, "%s %s: %s\n", what, l.Name, verdict(l))
		for _, p := range l.Problems {
			fmt.Fprintf(w, "  %s\n", p)
		}
		if l.More > 0 {
			fmt.Fprintf(w, "  and %d more\n", l.More)
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "image: %s\n", p)
	}
	_, err := fmt.Fprintf(w, "%s, %s\n", count(r.Errors, "problem"), count(r.Warnings, "warning"))
	return err
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// verdict says in a few words what was found, and what could not be checked.
func verdict(l check.Layer) string {
	s := "ok"
	if len(l.Problems) > 0 {
		s = "not ok"
		if !slices.ContainsFunc(l.Problems, func(p check.Problem) bool { return !p.Warning }) {
			s = "ok, with warnings"
		}
	}
	s += ", " + terminal.Bytes(l.Size)
	if l.Blocks > 0 {
		s += fmt.Sprintf(" in %d blocks", l.Blocks)
		if !l.Checksums {
			s += " without checksums"
		}
	}
	if l.Chunks > 0 {
		s += fmt.Sprintf(", %d chunks", l.Chunks)
	}
	if !l.Claimed {
		s += fmt.Sprintf(", no digest to compare with (it is %s)", l.Digest)
	}
	return s
}
