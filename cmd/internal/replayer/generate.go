package replayer

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/reprise-containers/reprise/cache/workload/generate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/newfile"
	"github.com/reprise-containers/reprise/cmd/internal/replayprogress"
)

// Generate writes a synthetic trace.
func (p *Replayer) Generate(ctx context.Context) error {
	c := p.Config.Generate
	g, err := generate.New(generate.Config{Requests: c.Requests, Seed: c.Seed, Rate: c.Rate, Clients: c.Clients, ReadOnly: c.ReadOnly})
	if err != nil {
		return err
	}
	return p.writeTrace(ctx, g, c.Requests, c.Output)
}

// writeTrace writes a trace of n requests, as JSON lines, to a file or standard
// output (-). What an earlier run has written is replaced.
func (p *Replayer) writeTrace(ctx context.Context, r trace.Reader, n int64, path string) error {
	m := &metered{r: r, of: n}
	work := func(to io.Writer) error {
		return replayprogress.During(ctx, p.Log, m.state, func(ctx context.Context) error { return copyTrace(ctx, to, path, m) })
	}
	if path == "-" {
		return work(p.Out)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := newfile.Write(path, true, func(f *os.File) error { return work(f) }); err != nil {
		return fmt.Errorf("writing the trace: %w", err)
	}
	return nil
}

// copyTrace writes a trace, compressed as the name of its file says.
func copyTrace(ctx context.Context, to io.Writer, name string, r trace.Reader) (err error) {
	var packed io.WriteCloser
	switch {
	case strings.HasSuffix(name, ".gz"):
		packed = gzip.NewWriter(to)
	case strings.HasSuffix(name, ".zst"):
		if packed, err = zstd.NewWriter(to); err != nil {
			return err
		}
	}
	if packed != nil {
		to = packed
	}
	w := trace.NewWriter(to)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := w.Write(x.Record()); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil || packed == nil {
		return err
	}
	return packed.Close()
}
