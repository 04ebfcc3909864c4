package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FaultError says what is wrong with a file system.
type FaultError struct {
	// What is wrong.
	What string
}

func (e *FaultError) Error() string { return e.What }

// Floor is what a file system answers for: of each worker, up to which
// number its operations were done.
type Floor []uint32

// Acknowledged returns all that was acknowledged: what a daemon's end must not
// take from a file system that stays mounted.
func (l *Load) Acknowledged() Floor {
	return l.floor(func(w *worker) int { return w.acked })
}

// Durable returns what a crash of the machine must not take.
func (l *Load) Durable() Floor {
	return l.floor(func(w *worker) int { return w.durable })
}

func (l *Load) floor(of func(*worker) int) Floor {
	var f Floor
	for _, w := range l.workers {
		w.mu.Lock()
		f = append(f, w.next+uint32(of(w))-1)
		w.mu.Unlock()
	}
	return f
}

// State is what a check has found.
type State struct {
	folders []folder
}

// Check compares what is in a file system, which nobody loads, with the last
// Floor. It returns a *FaultError if that can not be.
func (l *Load) Check(root string, f Floor) (*State, error) {
	s := &State{}
	var errs []error
	for i, w := range l.workers {
		found, err := w.read(w.dir(root))
		if err == nil {
			err = w.judge(found, f[i])
		}
		errs = append(errs, err)
		s.folders = append(s.folders, found)
	}
	return s, errors.Join(errs...)
}

// read reads a worker's folder. One that is not there has no files.
func (w *worker) read(dir string) (found folder, err error) {
	for n := range uint8(names) {
		file := filepath.Join(dir, name(n))
		seq, err := w.identify(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found, err
		}
		found[n] = seq
	}
	return found, w.strange(dir)
}

// strange reports files that nobody has made.
func (w *worker) strange(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		var n uint8
		if _, err := fmt.Sscanf(e.Name(), "file-%d", &n); e.Name() != unfinished && (err != nil || n >= names || name(n) != e.Name()) {
			return &FaultError{fmt.Sprintf("%s holds %q, which nobody has made", dir, e.Name())}
		}
	}
	return nil
}

// judge looks for an operation, not before floor, after which a folder was as it
// is.
func (w *worker) judge(found folder, floor uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	state, wanted := w.base, w.base
	for i := 0; ; i++ {
		seq := w.next + uint32(i) - 1 // the last that state has
		if seq == floor {
			wanted = state
		}
		if seq >= floor && state == found {
			return nil
		}
		if i == len(w.log) {
			break
		}
		state = state.apply(w.log[i], seq+1)
	}
	var diff []string
	for n := range found {
		if found[n] != wanted[n] {
			diff = append(diff, fmt.Sprintf("%s holds %d, not %d", name(uint8(n)), found[n], wanted[n]))
		}
	}
	return &FaultError{fmt.Sprintf("the folder of worker %d was never like this since operation %d (%d begun): %s",
		w.id, floor, int(w.next)+len(w.log)-1, strings.Join(diff, ", "))}
}

// Adopt goes on with what was found after a loss.
func (l *Load) Adopt(s *State) {
	for i, w := range l.workers {
		w.mu.Lock()
		w.next += uint32(len(w.log))
		w.base, w.log, w.acked, w.durable = s.folders[i], nil, 0, 0
		w.mu.Unlock()
	}
}
