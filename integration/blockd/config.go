package blockd

import (
	"os"
	"path/filepath"

	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// Config is what a daemon serves. Its successors have the same.
type Config struct {
	// Dir is a folder of its own, with a short name.
	Dir     string
	Devices []Device
	// Group is the folder of a control group that the daemon enters, or "".
	Group string
	// Profile is a file for a profile of the daemon's processor time until it
	// is stopped, or "".
	Profile string
}

// Device is a writable device.
type Device struct {
	ID     string
	Sparse bool
	Size   int64 // bytes
	// Layers are files of layers below it, bottom first.
	Layers []string
	// FSType is the type of the file system that is made on it and mounted on
	// Target, or "" for a loop device.
	FSType string
}

// Target is where a device is mounted.
func (c Config) Target(id string) string { return filepath.Join(c.Dir, "mnt", id) }

// fusedev is the configuration of the server.
func (c Config) fusedev() fusedev.Config {
	return fusedev.Config{StateDir: filepath.Join(c.Dir, "state"), RuntimeDir: filepath.Join(c.Dir, "run")}
}

// folder is where a device's files are.
func (c Config) folder(id string) string { return filepath.Join(c.Dir, "layers", id) }

// upper names the nth writable layer of a device.
func (c Config) upper(id, n string) lsmt.UpperFiles {
	return lsmt.UpperFiles{
		Data:  filepath.Join(c.folder(id), "data-"+n),
		Index: filepath.Join(c.folder(id), "index-"+n),
	}
}

// Prepare makes the folders. It is called once, before the first daemon.
func (c Config) Prepare() error {
	for _, dir := range []string{"mnt", "layers", "state", "run"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	for _, d := range c.Devices {
		if err := c.create(d); err != nil {
			return err
		}
	}
	return nil
}
