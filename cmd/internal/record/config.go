package record

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/tracelayer"
)

const (
	// stopGrace is how long a container has between TERM and KILL.
	stopGrace = 10 * time.Second
	// collectTimeout bounds the wait for the snapshotter to write what it
	// recorded: it hashes and copies all of it, which it just had in its cache.
	collectTimeout = 5 * time.Minute
	// cleanTimeout bounds the removal of what is temporary.
	cleanTimeout = time.Minute
)

// Config says what is recorded and how.
type Config struct {
	// Client is of containerd. The namespace is that of the context.
	Client *containerd.Client
	// Old is the image, New the name of its copy with a trace.
	Old, New string
	// Args is the command; empty: that of the image.
	Args []string
	// List are the contents of a priority list, to be used in place of a
	// recording; nil: none.
	List []byte
	// Time is how long the container runs, at most.
	Time time.Duration
	// Dir is the directory for temporary files. It is made if need be, and
	// must not be open to others: the snapshotter writes there as root.
	Dir string
	// Snapshotter and Runtime are containerd's names.
	Snapshotter, Runtime string
	// HostNetwork leaves the container in the network of the host.
	HostNetwork bool
	// PluginDir is where CNI plugins are. If it has them, the container gets an
	// address in a network of its own.
	PluginDir string
	// NoData leaves the bytes of the plan's ranges out of the layer.
	NoData bool
	// Stop ends the recording, as if Time had passed.
	Stop <-chan struct{}
	// Started is called when there begins to be something that Stop would keep;
	// before that, only the end of the context ends the work. May be nil.
	Started func()
	// Stdin, Stdout and Stderr are the container's.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Note is told what goes on.
	Note func(format string, args ...any)
}

// Validate reports what makes no sense.
func (c Config) Validate() error {
	switch {
	case c.Client == nil:
		return errors.New("recording needs a containerd")
	case c.Old == "" || c.New == "":
		return errors.New("recording needs an image and a name for its copy with the trace")
	case c.Old == c.New:
		return fmt.Errorf("%s can't be replaced: the copy with the trace needs a name of its own", c.Old)
	case c.Time <= 0:
		return fmt.Errorf("recording for %v: it must be longer than nothing", c.Time)
	case c.List != nil && len(c.Args) > 0:
		return errors.New("a priority list stands in place of a recording: there is no command to be given with it")
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("directory %q for temporary files: it must be absolute, for the snapshotter writes there, too", c.Dir)
	case c.Snapshotter == "":
		return errors.New("no snapshotter is named")
	}
	if _, err := reference.ParseNormalizedNamed(c.New); err != nil {
		return fmt.Errorf("name %q of the copy with the trace: %w", c.New, err)
	}
	if c.List != nil {
		if _, err := c.list(); err != nil {
			return err
		}
	}
	return nil
}

// list parses the priority list.
func (c Config) list() ([]string, error) {
	paths, err := tracelayer.ParseList(c.List)
	if err == nil && len(paths) == 0 {
		err = errors.New("the priority list names no file")
	}
	return paths, err
}

func (c Config) withDefaults() Config {
	c.Dir = filepath.Clean(c.Dir)
	c.Stdout = cmp.Or[io.Writer](c.Stdout, io.Discard)
	c.Stderr = cmp.Or[io.Writer](c.Stderr, io.Discard)
	if c.Started == nil {
		c.Started = func() {}
	}
	if c.Note == nil {
		c.Note = func(string, ...any) {}
	}
	return c
}

// Summary is what a recording made.
type Summary struct {
	Name   string
	Target digest.Digest
	// Ended says why the recording ended; "" if there was a list.
	Ended string
	// Files is how many entries the priority list has; 0 if there was none.
	Files int
	// Records and Read (bytes, of the layers' uncompressed streams) are those
	// of the trace; 0 if there was a list.
	Records int
	Read    int64
	// Extents and Planned (bytes, of the layers' blobs) are those of the plan.
	Extents int
	Planned int64
	// Layer is the size of the trace layer in bytes, Data that of its data.
	Layer, Data int64
	// Replaced says that the image had a trace, which its copy has not.
	Replaced bool
}
