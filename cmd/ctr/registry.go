package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/pkg/httpdbg"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// uploadPatience is how long a registry may take to answer: where it copies an
// upload to its place, that depends on its size.
const uploadPatience = 3 * time.Minute

const userAgent = "reprise-ctr"

// newRegistry returns a client of the registry of ref as containerd's registry
// flags describe it. Without --user and --refresh, credentials are docker's.
func newRegistry(ctx context.Context, cmd *cli.Command, ref string) (*registry.Client, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("parsing reference %q: %w", ref, err)
	}
	cfg := registry.Config{
		HostsDir:              cmd.String("hosts-dir"),
		UserAgent:             userAgent,
		ResponseHeaderTimeout: uploadPatience,
	}
	if cmd.Bool("plain-http") {
		cfg.PlainHTTP = []string{reference.Domain(named)}
	}
	if cfg.TLS, err = tlsConfig(cmd); err != nil {
		return nil, err
	}
	if cmd.String("user") != "" || cmd.String("refresh") != "" {
		flags, err := commands.NewStaticCredentials(ctx, cmd, ref)
		if err != nil {
			return nil, fmt.Errorf("asking for the password: %w", err)
		}
		cfg.Credentials = func(host string) (user, secret string, err error) {
			c, err := flags.GetCredentials(ctx, ref, host)
			return c.Username, c.Secret, err
		}
	}
	if cmd.Bool("http-dump") {
		cfg.Decorate = func(rt http.RoundTripper) http.RoundTripper {
			c := &http.Client{Transport: rt}
			httpdbg.DumpRequests(ctx, c, nil)
			return c.Transport
		}
	}
	return registry.New(cfg)
}

// tlsConfig reads the flags about TLS; nil if there are none.
func tlsConfig(cmd *cli.Command) (*tls.Config, error) {
	ca, cert, key := cmd.String("tlscacert"), cmd.String("tlscert"), cmd.String("tlskey")
	c := &tls.Config{InsecureSkipVerify: cmd.Bool("skip-verify")}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("reading --tlscacert: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--tlscacert %s has no certificate", ca)
		}
	}
	if cert != "" || key != "" {
		if cert == "" || key == "" {
			return nil, errors.New("--tlscert and --tlskey belong together")
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("reading --tlscert and --tlskey: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if !c.InsecureSkipVerify && c.RootCAs == nil && c.Certificates == nil {
		return nil, nil
	}
	return c, nil
}

// patience is how a command that somebody waits for repeats reads.
var patience = blob.RetryConfig{Attempts: 5, Base: 200 * time.Millisecond, Max: 5 * time.Second}

// origins opens blobs: of the registry that is pushed to by its own client, of
// others by one that knows nothing of the flags for the first, above all no
// password.
type origins struct {
	host      string
	own, rest *chain.Chain
}

func newOrigins(cmd *cli.Command, ref string, own *registry.Client) (*origins, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("parsing reference %q: %w", ref, err)
	}
	rest, err := registry.New(registry.Config{HostsDir: cmd.String("hosts-dir"), UserAgent: userAgent})
	if err != nil {
		return nil, err
	}
	cfg := chain.Config{Retry: patience}
	return &origins{reference.Domain(named), chain.New(own, cfg), chain.New(rest, cfg)}, nil
}

// Open implements push.Sources.
func (o *origins) Open(ref string, desc ocispec.Descriptor) (blob.Blob, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err == nil && reference.Domain(named) == o.host {
		return o.own.Open(ref, desc)
	}
	return o.rest.Open(ref, desc)
}
