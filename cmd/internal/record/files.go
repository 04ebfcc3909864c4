package record

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/handover"
	"github.com/reprise-containers/reprise/tracelayer"
)

const (
	// poll is how often the files that a snapshotter writes are looked for.
	poll = 50 * time.Millisecond
	// removeAgain is how often files are removed again if there are more: the
	// snapshotter writes five of them.
	removeAgain = 5
	// maxReason bounds what is read of why a recording failed, in bytes.
	maxReason = 4 << 10
)

// files are what a recording is handed over in: the trace, and others whose names
// are its name and a suffix, in a directory of its own. Once that is removed, a
// snapshotter that still writes can not make more of them.
type files struct {
	dir, trace string
}

// newID returns a name that no other recording has, as upstream makes it.
func newID(now time.Time) string {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return "record-trace-" + now.UTC().Format("20060102150405") + "-" + hex.EncodeToString(b[:])
}

// makeFiles makes the directory dir, if it is not there, one for the recording in
// it, and there the empty trace file.
func makeFiles(dir, id string) (files, error) {
	f := files{dir: filepath.Join(dir, id)}
	f.trace = filepath.Join(f.dir, "trace")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return f, err
	}
	if err := private(dir); err != nil {
		return f, err
	}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return f, err
	}
	trace, err := os.OpenFile(f.trace, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = trace.Close()
	}
	if err != nil {
		return f, errors.Join(err, f.remove())
	}
	return f, nil
}

// private refuses a directory that others can write to: they could swap the
// files that the snapshotter opens as root.
func private(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return fmt.Errorf("%s is no directory", dir)
	case !ok || int(owner.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to somebody else: name another one with --working-dir", dir)
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written to by others: name another one with --working-dir", dir)
	}
	return nil
}

// remove removes what a recording left. The snapshotter may be making another file
// right then, so that the directory is not empty after all.
func (f files) remove() error {
	err := os.RemoveAll(f.dir)
	for range removeAgain {
		if err == nil {
			break
		}
		err = os.RemoveAll(f.dir)
	}
	return err
}

// fifos is the directory for the container's standard input and output.
func (f files) fifos() string { return filepath.Join(f.dir, "fifo") }

// began reports whether the snapshotter records.
func (f files) began() error {
	_, err := os.Stat(f.trace + handover.Lock)
	if errors.Is(err, fs.ErrNotExist) {
		if reason := f.reason(); reason != nil {
			return reason
		}
		return errors.New("the snapshotter does not record: it is not Reprise's, or too old, or sees other files than this program")
	}
	return err
}

// finish has the snapshotter write what it recorded so far.
func (f files) finish() error {
	err := os.Remove(f.trace + handover.Lock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it ended by itself
	}
	return err
}

// wait waits until that is written.
func (f files) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, collectTimeout,
		fmt.Errorf("the snapshotter wrote no trace within %v", collectTimeout))
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if reason := f.reason(); reason != nil {
			return reason
		}
		if _, err := os.Stat(f.trace + handover.OK); err == nil {
			return nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reason returns why a recording failed, nil if it did not.
func (f files) reason() error {
	text, err := read(f.trace+handover.Err, maxReason)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the snapshotter says: %s", strings.TrimSpace(string(text)))
}

// recorded is what the snapshotter wrote.
type recorded struct {
	trace tracelayer.Trace
	plan  *tracelayer.Plan // nil if there is none
}

func (f files) read() (recorded, error) {
	var r recorded
	text, err := read(f.trace, tracelayer.MaxSlot)
	if err != nil {
		return r, err
	}
	if r.trace, err = tracelayer.Decode(text); err != nil {
		return r, fmt.Errorf("reading the trace: %w", err)
	}
	text, err = read(f.trace+handover.Plan, tracelayer.MaxPlan)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err != nil:
		return r, err
	}
	if r.plan, err = tracelayer.DecodePlan(text); err != nil {
		return r, fmt.Errorf("reading the plan: %w", err)
	}
	return r, nil
}

// data opens the data of a plan.
func (f files) data(want int64) (io.ReadCloser, error) {
	file, err := os.Open(f.trace + handover.Data)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && st.Size() != want {
		err = fmt.Errorf("%s has %d bytes, its plan says %d", file.Name(), st.Size(), want)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// read reads a file of at most limit bytes.
func read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return text, err
}
