package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// commonFlags are those of every subcommand that opens an image.
func commonFlags() []cli.Flag {
	return append(registryFlags(), &cli.StringFlag{
		Name:  "platform",
		Usage: "`OS/ARCH` to choose from a multi-platform image (default: this host's)",
	})
}

// registryFlags say how registries are reached, and what is shown meanwhile.
func registryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:  "hosts-dir",
			Usage: "directory of containerd host configurations (mirrors, certificates)",
			Value: "/etc/containerd/certs.d",
		},
		&cli.StringSliceFlag{
			Name:  "plain-http",
			Usage: "speak http with `HOST[:PORT]`; loopback addresses need no flag; repeatable",
		},
		&cli.StringFlag{
			Name:  "docker-config",
			Usage: "docker config.json with credentials (default: $DOCKER_CONFIG or ~/.docker)",
		},
		&cli.BoolFlag{
			Name:  "progress",
			Usage: "show progress even if standard error is not a terminal",
		},
	}
}

// jsonFlag is the flag of subcommands that print a report.
func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print a JSON document"}
}

// What an image argument can be, for the help texts.
const imageHelp = `IMAGE is a registry reference (docker.io/library/redis:7), an OCI image layout
(a directory or tar archive, with :TAG or @DIGEST if it holds several images),
a file with one layer blob, or a config.v1.json of overlaybd. Several layer
files form a stack, the bottom one first.`

// patience is how a tool that somebody waits for repeats reads: not for ever.
var patience = blob.RetryConfig{Attempts: 5, Base: 200 * time.Millisecond, Max: 5 * time.Second}

// newChain returns what reads images in registries; cfg.Retry is patience
// unless set.
func newChain(cmd *cli.Command, cfg chain.Config) (*chain.Chain, error) {
	client, err := newClient(cmd, registry.Config{})
	if err != nil {
		return nil, err
	}
	return chain.New(client, cfg), nil
}

// newClient returns the client of registries that the flags describe; the rest
// is as in cfg.
func newClient(cmd *cli.Command, cfg registry.Config) (*registry.Client, error) {
	cfg.HostsDir = cmd.String("hosts-dir")
	cfg.DockerConfig = cmd.String("docker-config")
	cfg.PlainHTTP = cmd.StringSlice("plain-http")
	cfg.UserAgent = "reprise/" + version
	client, err := registry.New(cfg)
	if err != nil {
		return nil, usageError{err}
	}
	return client, nil
}

// openImage opens the image that the arguments name, without a cache.
func openImage(ctx context.Context, cmd *cli.Command, args []string) (*source.Image, error) {
	c, err := newChain(cmd, chain.Config{Retry: patience})
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, usageError{fmt.Errorf("%s needs an image", cmd.Name)}
	}
	return source.OpenAll(ctx, args, source.Config{Registry: c, Platform: cmd.String("platform")})
}

// closing closes c at the end of a function whose result is err.
func closing(c io.Closer, err *error) { *err = errors.Join(*err, c.Close()) }

// progress returns where to show progress, nil for nowhere.
func progress(cmd *cli.Command) io.Writer {
	if w := cmd.Root().ErrWriter; terminal.Is(w) || cmd.Bool("progress") {
		return w
	}
	return nil
}

// printJSON writes v for programs.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
