package fusedev

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Defaults of Config.
const (
	DefaultMaxInFlight      = 64
	DefaultMaxInFlightBytes = 16 << 20
	DefaultDrainTimeout     = 2 * time.Second
	DefaultPatience         = 5 * time.Second
)

// Config says where a Server lives. All zero values but the directories have
// defaults.
type Config struct {
	// StateDir is a directory of its own for the lock that keeps a second
	// daemon out, and the inode numbers of devices. They matter for as
	// long as the kernel runs, so losing them in a power cut does no harm.
	StateDir string

	// RuntimeDir is a directory of its own for the mount point of the FUSE
	// file system, the holder's socket and the locks of child processes.
	// It should not survive a reboot (/run). Its path is limited by that
	// of a unix socket, 108 bytes in all.
	RuntimeDir string

	// MaxInFlight and MaxInFlightBytes limit the reads of one device that
	// are being answered, and the memory for their buffers. Further reads
	// of the device wait without a buffer, and hold up no other device.
	// 64 and 16 MiB.
	MaxInFlight      int
	MaxInFlightBytes int64

	// DrainTimeout is how long a server that was asked to stop waits for
	// reads in progress before it leaves them to its successor. 2 s.
	DrainTimeout time.Duration

	// Patience is how long an unmount waits for files to be closed, and
	// again for a file system to end. 5 s.
	Patience time.Duration

	// Command executes this program, with what makes it call Child first.
	// The default is /proc/self/exe, which is right when main calls Child.
	Command []string

	// Observer is told what cannot be returned. It may be nil.
	Observer Observer
}

// Observer is told about events that no caller gets as an error. Its methods
// are called from several goroutines and must not block.
type Observer interface {
	// ReadFailed is called for each read that a device failed, and that
	// the kernel therefore got EIO for. off and n are in bytes.
	ReadFailed(id string, off int64, n int, err error)

	// WriteFailed is called for each write, discard or flush that a device
	// failed. off and n are in bytes, 0 for a flush.
	WriteFailed(id string, off, n int64, err error)

	// HolderLost is called when the holder process ended and was replaced
	// (err is nil) or could not be replaced (err says why; it is tried
	// again).
	HolderLost(err error)
}

// Validate checks the configuration.
func (c Config) Validate() error {
	for name, dir := range map[string]string{"state": c.StateDir, "runtime": c.RuntimeDir} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
			return fmt.Errorf("%s directory %q is not a clean absolute path", name, dir)
		}
	}
	if n := len(c.socket()); n > 107 {
		return fmt.Errorf("runtime directory %q is too long for a unix socket (%d of 107 bytes)", c.RuntimeDir, n)
	}
	if c.MaxInFlight < 0 || c.MaxInFlightBytes < 0 || c.DrainTimeout < 0 || c.Patience < 0 {
		return errors.New("limits and timeouts must not be negative")
	}
	return nil
}

// withDefaults returns c with its zero values replaced.
func (c Config) withDefaults() Config {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	if c.MaxInFlightBytes == 0 {
		c.MaxInFlightBytes = DefaultMaxInFlightBytes
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	if len(c.Command) == 0 {
		c.Command = []string{"/proc/self/exe"}
	}
	return c
}

func (c Config) socket() string    { return filepath.Join(c.RuntimeDir, "holder.sock") }
func (c Config) fuseDir() string   { return filepath.Join(c.RuntimeDir, "devices") }
func (c Config) jobDir() string    { return filepath.Join(c.RuntimeDir, "jobs") }
func (c Config) deviceDir() string { return filepath.Join(c.StateDir, "devices") }
