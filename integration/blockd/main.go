package blockd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"sync"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/integration/memgroup"
	"github.com/reprise-containers/reprise/remote/blob"
)

// argument is what makes a program a daemon.
const argument = "blockd-serve"

// Child does the work of a process that this package, or what it uses, has
// started from the same program. If ok, the program must exit with code.
func Child(args []string) (code int, ok bool) {
	if code, ok := fusedev.Child(args); ok {
		return code, true
	}
	if len(args) != 3 || args[1] != argument {
		return 0, false
	}
	if err := serve(args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "blockd:", err)
		return 1, true
	}
	return 0, true
}

// daemon is the daemon's side.
type daemon struct {
	cfg      Config
	server   *fusedev.Server
	attacher *attach.Attacher

	mu      sync.Mutex // protects what follows
	out     *json.Encoder
	devices map[string]*served
}

// serve is a daemon until it is killed or stopped.
func serve(file string) error {
	d := &daemon{out: json.NewEncoder(os.Stdout), devices: map[string]*served{}}
	p, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(p, &d.cfg)
	}
	if err == nil && d.cfg.Group != "" {
		err = memgroup.Enter(d.cfg.Group)
	}
	if err != nil {
		return err
	}
	if d.cfg.Profile != "" {
		done, err := profile(d.cfg.Profile)
		if err != nil {
			return err
		}
		defer done()
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	config := d.cfg.fusedev()
	config.Observer = complaints{}
	if d.server, err = fusedev.Open(ctx, config); err != nil {
		return err
	}
	d.attacher = attach.New(d.server, noRegistry, attach.DefaultConfig)
	served := make(chan error, 1)
	go func() {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return d.attacher.Run(ctx) })
		g.Go(func() error {
			defer cancel()
			return d.server.Run(ctx)
		})
		served <- g.Wait()
	}()
	failed := make(chan error, 1)
	go func() {
		err := d.attach(ctx)
		if err == nil {
			err = d.obey(ctx, os.Stdin)
		}
		failed <- err
	}()
	select {
	case err = <-served:
		return errors.Join(err, d.server.Close())
	case err = <-failed:
	}
	if err == nil { // stopped: all is unmounted
		err = d.server.Shutdown(context.WithoutCancel(ctx))
	}
	cancel()
	return errors.Join(err, <-served, d.server.Close())
}

// noRegistry has no blobs: all layers are files.
func noRegistry(ref string, desc ocispec.Descriptor) (blob.Blob, error) {
	return nil, fmt.Errorf("opening blob %s of %s: there is no registry", desc.Digest, ref)
}

func profile(file string) (done func(), err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

// attach takes over what an earlier daemon had, and attaches all devices.
func (d *daemon) attach(ctx context.Context) error {
	var all []backstore.Attachment
	for _, device := range d.cfg.Devices {
		stack, err := d.cfg.settle(ctx, device.ID)
		if err != nil {
			return err
		}
		s := &served{cfg: d.cfg, device: device, attacher: d.attacher, stack: stack}
		d.devices[device.ID] = s
		all = append(all, s.attachment())
	}
	if _, err := d.attacher.Recover(ctx, all); err != nil {
		return err
	}
	if err := d.server.Tidy(ctx); err != nil {
		return err
	}
	ready := &Ready{Paths: map[string]string{}, Holder: d.server.HolderPID()}
	for id, s := range d.devices {
		path, err := s.attach(ctx)
		if err != nil {
			return err
		}
		ready.Paths[id] = path
	}
	d.say(message{Ready: ready})
	return nil
}

func (d *daemon) say(m message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.out.Encode(m) //nolint:errcheck // nobody listens any more
}

// obey does what is asked, things side by side, until it is told to stop.
func (d *daemon) obey(ctx context.Context, in io.Reader) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		if c.Do == stop {
			wg.Wait()
			return d.detachAll(ctx)
		}
		wg.Go(func() {
			a := answer{ID: c.ID}
			below, err := d.do(ctx, c)
			if a.Below = below; err != nil {
				a.Error = err.Error()
			}
			d.say(message{Answer: &a})
		})
	}
	// Whoever gave commands is gone. The devices are not.
	<-ctx.Done()
	return context.Cause(ctx)
}

func (d *daemon) do(ctx context.Context, c command) ([]string, error) {
	s := d.find(c.Device)
	if s == nil {
		return nil, fmt.Errorf("no device %q", c.Device)
	}
	switch c.Do {
	case commit:
		return s.commit(ctx, c.File)
	case restack:
		return nil, s.restack(ctx)
	case detach, seal:
		if err := s.detach(ctx); err != nil {
			return nil, err
		}
		d.mu.Lock()
		delete(d.devices, c.Device)
		d.mu.Unlock()
		if c.Do == seal {
			_, err := d.cfg.Seal(ctx, c.Device)
			return nil, err
		}
		return nil, nil
	}
	return nil, fmt.Errorf("no command %q", c.Do)
}

func (d *daemon) find(id string) *served {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.devices[id]
}

func (d *daemon) detachAll(ctx context.Context) error {
	var errs []error
	for _, s := range d.devices {
		errs = append(errs, s.detach(ctx))
	}
	return errors.Join(errs...)
}

// complaints go to stderr, where a test looks.
type complaints struct{}

func (complaints) ReadFailed(id string, off int64, n int, err error) {
	fmt.Fprintf(os.Stderr, "read of %s, %d bytes at %d: %v\n", id, n, off, err)
}

func (complaints) WriteFailed(id string, off, n int64, err error) {
	fmt.Fprintf(os.Stderr, "write of %s, %d bytes at %d: %v\n", id, n, off, err)
}

func (complaints) HolderLost(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "holder lost: %v\n", err)
	}
}
