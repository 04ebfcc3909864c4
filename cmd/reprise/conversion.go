package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

func runConvert(ctx context.Context, cmd *cli.Command) (err error) {
	var j conversion
	defer closing(&j, &err)
	if err := j.open(ctx, cmd); err != nil {
		return guessed(err, cmd.Args().Get(1), j.to)
	}
	r, err := j.run(ctx, progress(cmd))
	for _, n := range j.notes {
		fmt.Fprintf(cmd.Root().ErrWriter, "reprise: note: %s\n", n)
	}
	if err != nil {
		return guessed(err, cmd.Args().Get(1), j.to)
	}
	if cmd.Bool("json") {
		return printJSON(cmd.Root().Writer, r)
	}
	return printConversion(cmd.Root().Writer, r)
}

// uploadPatience is how long a registry may take to answer: where it copies an
// upload to its place, that depends on its size.
const uploadPatience = 3 * time.Minute

// conversion is one call of the command.
type conversion struct {
	cfg   convert.Config
	to    destination.Location
	notes []string
	opens []io.Closer
}

// open opens source and destination, and what may be reused.
func (j *conversion) open(ctx context.Context, cmd *cli.Command) (err error) {
	args := cmd.Args().Slice()
	if len(args) != 2 {
		return usageError{errors.New("convert needs a source and a destination")}
	}
	if j.cfg, err = convertConfig(cmd); err != nil {
		return err
	}
	j.cfg.Note = func(s string) { j.notes = append(j.notes, s) }
	if j.to, err = destination.Parse(args[1]); err != nil {
		return usageError{err}
	}
	chunk, err := bytesFlag(cmd, "upload-chunk")
	if err != nil {
		return err
	}
	client, err := newClient(cmd, registry.Config{UploadChunk: chunk, ResponseHeaderTimeout: uploadPatience})
	if err != nil {
		return err
	}
	images := source.Config{Registry: chain.New(client, chain.Config{Retry: patience}), Platform: j.cfg.Platform}
	if j.cfg.Source, err = source.OpenContent(ctx, args[0], images); err != nil {
		return err
	}
	j.opens = append(j.opens, j.cfg.Source)
	if j.cfg.Destination, err = openDestination(cmd, client, j.to); err != nil {
		return err
	}
	j.opens = append(j.opens, j.cfg.Destination)
	if err := j.cfg.Validate(); err != nil {
		return usageError{err}
	}
	known := append([]string{j.to.Argument()}, cmd.StringSlice("reuse-from")...)
	if j.cfg.Referrer && j.to.Kind == source.KindRegistry {
		known = append(known, attached(ctx, client, j.to.Ref, j.cfg.Source.Root.Digest)...)
	}
	j.cfg.Known, err = openKnown(ctx, known, images, j.cfg.Note)
	for _, k := range j.cfg.Known {
		j.opens = append(j.opens, k)
	}
	return err
}

// guessed adds to an error of the destination's registry what else arg could
// have meant, if nothing in it names a registry.
func guessed(err error, arg string, to destination.Location) error {
	e, ok := errors.AsType[*registry.Error](err)
	if !ok || to.Kind != source.KindRegistry || strings.Contains(arg, "://") {
		return err
	}
	named, parseErr := reference.ParseNormalizedNamed(to.Ref)
	if parseErr != nil || strings.HasPrefix(arg, reference.Domain(named)) || !strings.HasPrefix(e.Ref, named.Name()) {
		return err
	}
	return fmt.Errorf("%w (for a layout write oci:%s)", err, arg)
}

// run converts and shows bars on w.
func (j *conversion) run(ctx context.Context, w io.Writer) (r *convert.Report, err error) {
	if n := j.cfg.Workers; n > 0 { // also for what decompresses and hashes
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
	}
	err = terminal.WithBars(w, func(b *terminal.Bars) error {
		j.cfg.Bars = b
		r, err = convert.Run(ctx, j.cfg)
		return err
	})
	if err == nil {
		r.Destination = j.to.String()
	}
	return r, err
}

// Close closes what open opened and removes what is temporary.
func (j *conversion) Close() error {
	var errs []error
	for _, c := range slices.Backward(j.opens) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
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
// what the destination is now, if there is one. A destination that can't be
// reached is an error, before any work is done.
func openKnown(ctx context.Context, args []string, cfg source.Config, note func(string)) ([]*source.Content, error) {
	cfg.Platform = ""
	var all []*source.Content
	for i, arg := range args {
		c, err := source.OpenContent(ctx, arg, cfg)
		e, ok := errors.AsType[*registry.Error](err)
		switch {
		case err == nil:
			all = append(all, c)
		case i == 0 && ok && e.Status == 0:
			return nil, fmt.Errorf("looking at the destination: %w", err)
		case i == 0 && (errors.Is(err, fs.ErrNotExist) || errdefs.IsNotFound(err)):
		case ctx.Err() == nil:
			note(fmt.Sprintf("no layers of %s are reused: %v", arg, err))
		}
	}
	return all, nil
}

// attached returns what was attached to a source by earlier conversions. If that
// can't be told, there is less to reuse.
func attached(ctx context.Context, client *registry.Client, ref string, subject digest.Digest) (args []string) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil
	}
	list, err := client.Referrers(ctx, ref, subject, labels.ConvertedArtifact)
	if err != nil {
		return nil
	}
	for _, d := range list[:min(len(list), maxAttached)] {
		args = append(args, "docker://"+named.Name()+"@"+d.Digest.String())
	}
	return args
}

// maxAttached bounds the earlier conversions that are looked at.
const maxAttached = 8

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
