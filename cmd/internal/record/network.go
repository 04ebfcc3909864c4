package record

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	containerd "github.com/containerd/containerd/v2/client"
	gocni "github.com/containerd/go-cni"
	"golang.org/x/sys/unix"
)

const (
	// bridge is upstream's name.
	bridge = "r-trace-br0"
	// networkDir has the addresses that are in use, and the lock of all who
	// use the bridge.
	networkDir = "/run/reprise-record-trace"
)

// network is upstream's: containers that are recorded at the same time see each
// other, and nothing else. There is no way out, so no server hears twice from
// something that is only run to look at its reads.
const network = `{
  "cniVersion": "1.0.0",
  "name": "record-trace",
  "plugins": [{
    "type": "bridge",
    "bridge": "` + bridge + `",
    "isGateway": false,
    "ipMasq": false,
    "ipam": {
      "type": "host-local",
      "dataDir": "` + networkDir + `",
      "ranges": [[{"subnet": "10.99.0.0/16"}]]
    }
  }]
}`

// plugins are those that network needs.
var plugins = []string{"bridge", "host-local"}

// connection is the network of a container; nil is none but its own loopback.
type connection struct {
	cni  gocni.CNI
	id   string
	lock *os.File // shared by all who use the bridge
}

// connect gives the task, which was not started yet, an address in a network of
// its own, if there are plugins for that.
func (r *recording) connect(ctx context.Context, task containerd.Task) (_ *connection, err error) {
	for _, name := range plugins {
		if _, err := os.Stat(filepath.Join(r.cfg.PluginDir, name)); errors.Is(err, fs.ErrNotExist) {
			r.cfg.Note("no CNI plugin %s in %s: the container has loopback only", name, r.cfg.PluginDir)
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	lock, err := lockNetwork()
	if err != nil {
		return nil, err
	}
	c := &connection{id: r.id, lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove(ctx))
		}
	}()
	c.cni, err = gocni.New(gocni.WithPluginDir([]string{r.cfg.PluginDir}), gocni.WithConfListBytes([]byte(network)))
	if err != nil {
		return nil, err
	}
	_, err = c.cni.Setup(ctx, c.id, fmt.Sprintf("/proc/%d/ns/net", task.Pid()))
	return c, err
}

// lockNetwork locks networkDir, and makes it if need be: who uses it last removes
// it, maybe while somebody else waits for the lock.
func lockNetwork() (*os.File, error) {
	for {
		if err := os.MkdirAll(networkDir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(networkDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		there, err := lockShared(f)
		if there && err == nil {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// lockShared locks f and reports whether it still has its name.
func lockShared(f *os.File) (bool, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		return false, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	locked, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(locked, named), err
}

// remove frees the address, and removes the bridge if nobody else uses it.
func (c *connection) remove(ctx context.Context) error {
	if c == nil {
		return nil
	}
	clean, cancel := cleaning(ctx)
	defer cancel()
	var errs []error
	if c.cni != nil {
		// The namespace, and the container's end of the link with it, goes
		// with the container, whose process id may be another's by now.
		if err := c.cni.Remove(clean, c.id, ""); err != nil {
			errs = append(errs, fmt.Errorf("disconnecting the container: %w", err))
		}
	}
	if unix.Flock(int(c.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		if err := removeLink(bridge); err != nil {
			errs = append(errs, fmt.Errorf("removing bridge %s: %w", bridge, err))
		}
		errs = append(errs, os.RemoveAll(networkDir))
	}
	return errors.Join(append(errs, c.lock.Close())...)
}
