package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/log"
	"github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"

	"github.com/reprise-containers/reprise/cmd/internal/config"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/snapshot/differ"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const (
	// attachTimeout bounds a call that has to read an image's indexes.
	// containerd's garbage collection waits for such calls.
	attachTimeout = 2 * time.Minute
	// stopTimeout is how long calls under way may take to end.
	stopTimeout = 5 * time.Second
)

// api is the snapshotter and the socket containerd speaks to it by.
type api struct {
	cfg     config.Snapshotter
	devices snapshot.Devices
	layers  differ.OpenLayers
	calls   grpc.UnaryServerInterceptor
	ready   atomic.Bool
}

// run recovers the state of an earlier daemon and serves until ctx ends.
func (a *api) run(ctx context.Context) error {
	sn, err := snapshot.New(ctx, snapshot.Config{
		Root:          a.cfg.Root,
		KeepIdle:      a.cfg.Device.KeepIdle,
		AttachTimeout: attachTimeout,
		Writable: snapshot.Writable{
			Mode:   labels.ParseWritable(a.cfg.Writable.Mode),
			Sparse: a.cfg.Writable.Layer == "sparse",
			Size:   int64(a.cfg.Writable.Size),
			FS:     a.cfg.Writable.FS,
		},
	}, a.devices)
	if err != nil {
		return err
	}
	defer sn.Close()
	l, err := listen(a.cfg.Address)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.ChainUnaryInterceptor(a.calls))
	snapshotsapi.RegisterSnapshotsServer(s, snapshotservice.FromSnapshotter(plainErrors{sn, sn}))
	if a.cfg.Diff.Containerd != "" {
		defer a.registerDiffer(s, sn).Close()
	}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		stop(s)
	})()
	a.ready.Store(true)
	defer a.ready.Store(false)
	notify(ctx, daemon.SdNotifyReady)
	log.G(ctx).WithField("address", a.cfg.Address).Info("serving containerd")
	if err := s.Serve(l); err != nil {
		return err
	}
	notify(ctx, daemon.SdNotifyStopping)
	<-stopped // calls under way need the snapshotter
	return nil
}

// stop ends a server, first by waiting for its calls.
func stop(s *grpc.Server) {
	hurry := time.AfterFunc(stopTimeout, s.Stop)
	defer hurry.Stop()
	s.GracefulStop()
}

// listen listens on a unix socket. One that is there is stale: the device
// server's lock was taken before.
func listen(address string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(address), 0o711); err != nil {
		return nil, err
	}
	if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing stale socket: %w", err)
	}
	l, err := net.Listen("unix", address)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(address, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// notify tells systemd, if it started the daemon.
func notify(ctx context.Context, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.G(ctx).WithError(err).Warn("telling systemd the state of the service")
	}
}
