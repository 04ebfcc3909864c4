package record

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// observe runs the container until the time is over, the user has seen enough or
// it ends. The recording is finished before the container is stopped: what it
// reads to end is of no use for a start. It returns why it ended.
func (r *recording) observe(ctx context.Context) (ended string, err error) {
	c, err := r.container(ctx)
	if err != nil {
		return "", fmt.Errorf("creating the container: %w", err)
	}
	defer func() { err = errors.Join(err, r.removeContainer(ctx, c)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := newStdin(ctx, r.cfg.Stdin)
	streams := cio.WithStreams(in, r.cfg.Stdout, r.cfg.Stderr)
	task, err := c.NewTask(ctx, cio.NewCreator(streams, cio.WithFIFODir(r.files.fifos())))
	if err != nil {
		return "", fmt.Errorf("creating the container's task: %w", err)
	}
	defer func() { err = errors.Join(err, r.removeTask(ctx, task)) }()
	in.task <- task
	exited, err := task.Wait(ctx)
	if err != nil {
		return "", err
	}
	if !r.cfg.HostNetwork {
		n, err := r.connect(ctx, task)
		if err != nil {
			return "", fmt.Errorf("connecting the container: %w", err)
		}
		defer func() { err = errors.Join(err, n.remove(ctx)) }()
	}
	// An interrupt while it starts is one of a container that runs: what it has read
	// until then is its recording.
	if err := task.Start(context.WithoutCancel(ctx)); err != nil {
		return "", fmt.Errorf("starting the container: %w", err)
	}
	r.cfg.Started()
	if ended, err = r.await(ctx, exited); err != nil {
		return "", err
	}
	if err := r.files.finish(); err != nil {
		return "", err
	}
	return ended, r.stop(ctx, task, exited)
}

// container creates the container on the snapshot that is recorded.
func (r *recording) container(ctx context.Context) (containerd.Container, error) {
	spec := []oci.SpecOpts{oci.WithDefaultUnixDevices, oci.WithImageConfig(r.old)}
	if len(r.cfg.Args) > 0 {
		spec = append(spec, oci.WithProcessArgs(r.cfg.Args...))
	}
	if r.cfg.HostNetwork {
		spec = append(spec, oci.WithHostNamespace(specs.NetworkNamespace), oci.WithHostHostsFile, oci.WithHostResolvconf)
	}
	return r.cfg.Client.NewContainer(ctx, r.id,
		containerd.WithImage(r.old),
		containerd.WithSnapshotter(r.cfg.Snapshotter),
		containerd.WithSnapshot(r.id),
		containerd.WithRuntime(r.cfg.Runtime, nil),
		containerd.WithNewSpec(spec...),
	)
}

// await waits for the first of all that ends a recording.
func (r *recording) await(ctx context.Context, exited <-chan containerd.ExitStatus) (string, error) {
	timer := time.NewTimer(r.cfg.Time)
	defer timer.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-timer.C:
			r.cfg.Note("the container still ran after %v: what it reads later is not in the trace; --time SECONDS records for longer", r.cfg.Time)
			return "the time was over", nil
		case <-r.cfg.Stop:
			return "the user stopped it", nil
		case s := <-exited:
			r.exited = true
			code, _, err := s.Result()
			return fmt.Sprintf("the container ended with status %d", code), err
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
			// There is no point in going on for nothing.
			if reason := r.files.reason(); reason != nil {
				return "", reason
			}
		}
	}
}

// stop ends the container: TERM, and KILL after a grace.
func (r *recording) stop(ctx context.Context, task containerd.Task, exited <-chan containerd.ExitStatus) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if r.exited {
			return nil
		}
		if err := task.Kill(ctx, signal); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("stopping the container: %w", err)
		}
		grace := time.NewTimer(stopGrace)
		select {
		case <-exited:
			r.exited = true
		case <-grace.C:
		case <-ctx.Done():
			grace.Stop()
			return ctx.Err()
		}
		grace.Stop()
	}
	if !r.exited {
		return errors.New("stopping the container: it is still there after KILL")
	}
	return nil
}

// removeTask ends what may still run of the container.
func (r *recording) removeTask(ctx context.Context, task containerd.Task) error {
	clean, cancel := cleaning(ctx)
	defer cancel()
	if _, err := task.Delete(clean, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("removing the container's task: %w", err)
	}
	return nil
}

func (r *recording) removeContainer(ctx context.Context, c containerd.Container) error {
	clean, cancel := cleaning(ctx)
	defer cancel()
	if err := c.Delete(clean); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("removing the container: %w", err)
	}
	return nil
}

// cleaning returns a context for the removal of what ctx no longer needs.
func cleaning(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
}
