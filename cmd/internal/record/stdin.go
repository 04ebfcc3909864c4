package record

import (
	"context"
	"errors"
	"io"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
)

// stdin is what the container reads. Its end is told to containerd, which would
// keep the container's end open for others who may write to it.
type stdin struct {
	io.Reader
	ctx  context.Context //nolint:containedctx // of the call that runs the container
	task chan containerd.Task
}

// newStdin returns an empty one for nil. The task is to be sent to it when there is
// one.
func newStdin(ctx context.Context, r io.Reader) *stdin {
	if r == nil {
		r = strings.NewReader("")
	}
	return &stdin{r, ctx, make(chan containerd.Task, 1)}
}

// Read implements io.Reader.
func (s *stdin) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	select {
	case task := <-s.task:
		// The container may have ended, and then nobody reads.
		_ = task.CloseIO(s.ctx, containerd.WithStdinCloser)
	case <-s.ctx.Done():
	}
	return n, err
}
