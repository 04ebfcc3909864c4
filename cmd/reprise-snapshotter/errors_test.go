package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/status"
)

// hollow unwraps to nothing.
type hollow struct{}

func (hollow) Error() string { return "the registry answered 500" }
func (hollow) Unwrap() error { return nil }

// failing fails to prepare, like a snapshotter whose registry is broken.
type failing struct {
	snapshots.Snapshotter
	snapshots.Cleaner
	err error
}

func (f failing) Prepare(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error) {
	return nil, f.err
}

func TestErrorsCrossTheSocket(t *testing.T) {
	for _, c := range []struct {
		err   error
		class error
	}{
		{fmt.Errorf("preparing: %w: %w", context.DeadlineExceeded, hollow{}), context.DeadlineExceeded},
		{fmt.Errorf("preparing: %w: %w", hollow{}, errdefs.ErrUnavailable), errdefs.ErrUnavailable},
		{fmt.Errorf("preparing: %w", errdefs.ErrAlreadyExists), errdefs.ErrAlreadyExists},
		{errors.Join(hollow{}, errors.New("something else")), errdefs.ErrUnknown},
	} {
		f := failing{err: c.err}
		_, err := plainErrors{f, f}.Prepare(t.Context(), "key", "")
		sent := errgrpc.ToGRPC(err)
		if text := status.Convert(sent).Message(); text != c.err.Error() {
			t.Errorf("%q is sent as %q", c.err, text)
		}
		if got := errgrpc.ToNative(sent); !errors.Is(got, c.class) {
			t.Errorf("%q arrives as %q, which is not %v", c.err, got, c.class)
		}
	}
	f := failing{}
	if _, err := (plainErrors{f, f}).Prepare(t.Context(), "key", ""); err != nil {
		t.Errorf("success arrives as %v", err)
	}
}
