package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/record"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/tracelayer"
)

// recordCommand adds a trace to an image. Flags and defaults are those of the
// record-trace of accelerated-container-image, so scripts keep working.
func recordCommand() *cli.Command {
	return &cli.Command{
		Name:      "record-trace",
		Usage:     "Record the start of a container, and make an image with the trace of it",
		ArgsUsage: "OldImage NewImage [COMMAND] [ARG...]",
		Description: `Run a temporary container of an overlaybd image, note what it reads, and name
NewImage a copy of OldImage with a topmost layer that has the trace. On a node that
has nothing, containers of NewImage start faster: what they are going to read is
fetched ahead of them.

The recording ends when the time is over, at Ctrl-C or a TERM signal, or when the
container ends by itself: each of them gives a usable trace. The container is then
stopped and removed. A second Ctrl-C gives up, as the first one does before the
container has started.

A trace that OldImage has is replaced in its copy. NewImage is not pushed: ctr push
does that.`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "time", Usage: "Record for so many seconds, at most", Value: 60},
			&cli.StringFlag{Name: "priority_list", Usage: "Put this list of files into the image in place of a recording"},
			&cli.StringFlag{Name: "working-dir", Usage: "Directory for temporary files, which no others may write to", Value: "/tmp/ctr-record-trace/"},
			&cli.StringFlag{
				Name: "snapshotter", Usage: "Snapshotter that records", Value: defaultSnapshotter,
				Sources: cli.EnvVars("CONTAINERD_SNAPSHOTTER"),
			},
			&cli.StringFlag{Name: "runtime", Usage: "Runtime of the container", Value: "io.containerd.runc.v2"},
			&cli.IntFlag{Name: "max-concurrent-downloads", Usage: "Is accepted and means nothing: nothing is downloaded", Value: 8},
			&cli.BoolFlag{Name: "disable-network-isolation", Usage: "Leave the container in the network of the host"},
			&cli.StringFlag{Name: "cni-plugin-dir", Usage: "Directory of CNI plugins for the container's own network", Value: "/opt/cni/bin/"},
			&cli.BoolFlag{Name: "no-data", Usage: "Leave out the bytes that are read: the image is smaller, and starts with more requests"},
		},
		DisableSliceFlagSeparator: true,
		StopOnNthArg:              new(2),
		Action:                    runRecord,
	}
}

func runRecord(ctx context.Context, cmd *cli.Command) (err error) {
	cfg, err := recordConfig(cmd)
	if err != nil {
		return err
	}
	client, ctx, cancel, err := commands.NewClient(ctx, cmd)
	if err != nil {
		return err
	}
	defer cancel()
	defer func() { _ = client.Close() }() // nothing is written to it any more
	cfg.Client = client
	s, err := recordUntilSignal(ctx, cfg)
	if err != nil {
		return err
	}
	return printRecord(cmd.Root().Writer, s)
}

// recordConfig reads the flags.
func recordConfig(cmd *cli.Command) (record.Config, error) {
	args := cmd.Args().Slice()
	if len(args) < 2 {
		return record.Config{}, errors.New("record-trace takes an image and the name of its copy with a trace, for example app:1.0 app:1.0-trace")
	}
	dir, err := filepath.Abs(cmd.String("working-dir"))
	if err != nil {
		return record.Config{}, err
	}
	cfg := record.Config{
		Old: args[0], New: args[1], Args: args[2:],
		Time:        time.Duration(cmd.Int("time")) * time.Second,
		Dir:         dir,
		Snapshotter: cmd.String("snapshotter"),
		Runtime:     cmd.String("runtime"),
		HostNetwork: cmd.Bool("disable-network-isolation"),
		PluginDir:   cmd.String("cni-plugin-dir"),
		NoData:      cmd.Bool("no-data"),
		Stdin:       os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Note: func(format string, args ...any) {
			fmt.Fprintf(cmd.Root().ErrWriter, "ctr: note: "+format+"\n", args...)
		},
	}
	if name := cmd.String("priority_list"); name != "" {
		cfg.List, err = readList(name)
	}
	return cfg, err
}

// readList reads a priority list, or as much of a longer file as shows that it is
// none.
func readList(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, tracelayer.MaxList+1))
	if text == nil {
		text = []byte{}
	}
	return text, err
}

// recordUntilSignal records. The first signal ends the recording, the second one
// all work, as does the first one if nothing can have been recorded yet.
func recordUntilSignal(ctx context.Context, cfg record.Config) (*record.Summary, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	enough := make(chan struct{})
	cfg.Stop = enough
	var started atomic.Bool
	cfg.Started = func() { started.Store(true) }
	first := func() {
		if started.Load() {
			close(enough)
			return
		}
		cfg.Note("the container has not started: nothing is recorded")
		cancel()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	over := make(chan struct{})
	defer close(over)
	wg.Go(func() {
		for _, then := range []func(){first, cancel} {
			select {
			case <-signals:
				then()
			case <-over:
				return
			}
		}
	})
	return record.Run(ctx, cfg)
}

// printRecord writes for people what was recorded.
func printRecord(w io.Writer, s *record.Summary) error {
	fmt.Fprintf(w, "%s@%s\n", s.Name, s.Target)
	if s.Files > 0 {
		fmt.Fprintf(w, "priority list of %d files\n", s.Files)
	} else {
		fmt.Fprintf(w, "recorded until %s: %d reads of %s\n", s.Ended, s.Records, terminal.Bytes(s.Read))
	}
	if s.Extents > 0 {
		fmt.Fprintf(w, "plan: %d ranges of %s in the registry\n", s.Extents, terminal.Bytes(s.Planned))
	}
	_, err := fmt.Fprintf(w, "trace layer: %s, of which data %s\n", terminal.Bytes(s.Layer), terminal.Bytes(s.Data))
	return err
}
