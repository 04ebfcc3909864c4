package main

import (
	"context"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// plainErrors is a snapshotter whose errors are a text and a class of errdefs.
// Of more structure the gRPC service makes details of its own, and panics when
// somewhere in it an error unwraps to nil, as those of many libraries do.
type plainErrors struct {
	snapshots.Snapshotter
	snapshots.Cleaner
}

// plainError is an error without its structure.
type plainError struct {
	text  string
	class error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.class }

func plain(err error) error {
	if err == nil {
		return nil
	}
	return &plainError{err.Error(), errdefs.Resolve(err)}
}

func (p plainErrors) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	info, err := p.Snapshotter.Stat(ctx, key)
	return info, plain(err)
}

func (p plainErrors) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
	info, err := p.Snapshotter.Update(ctx, info, fieldpaths...)
	return info, plain(err)
}

func (p plainErrors) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	usage, err := p.Snapshotter.Usage(ctx, key)
	return usage, plain(err)
}

func (p plainErrors) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := p.Snapshotter.Mounts(ctx, key)
	return mounts, plain(err)
}

func (p plainErrors) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := p.Snapshotter.Prepare(ctx, key, parent, opts...)
	return mounts, plain(err)
}

func (p plainErrors) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := p.Snapshotter.View(ctx, key, parent, opts...)
	return mounts, plain(err)
}

func (p plainErrors) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return plain(p.Snapshotter.Commit(ctx, name, key, opts...))
}

func (p plainErrors) Remove(ctx context.Context, key string) error {
	return plain(p.Snapshotter.Remove(ctx, key))
}

// Walk stops with the error of fn, or one of its own, either made plain.
func (p plainErrors) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return plain(p.Snapshotter.Walk(ctx, fn, filters...))
}

func (p plainErrors) Cleanup(ctx context.Context) error {
	return plain(p.Cleaner.Cleanup(ctx))
}
