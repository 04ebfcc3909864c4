package recordings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// traceSuffix ends the names of traces in Config.Dir.
const traceSuffix = ".trace"

// repository returns the directory for recordings of the repository of ref.
func (r *Recordings) repository(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("parsing reference %q: %w", ref, err)
	}
	return filepath.Join(r.cfg.Dir, strings.ReplaceAll(named.Name(), "/", "_")), nil
}

// kept returns how many recordings of the repository of ref there are.
func (r *Recordings) kept(ref string) (int, error) {
	dir, err := r.repository(ref)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), traceSuffix) {
			n++
		}
	}
	return n, nil
}

// newFile makes an empty file for a recording of the image ref.
func (r *Recordings) newFile(ref string) (string, error) {
	dir, err := r.repository(ref)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("making room for a recording: %w", err)
	}
	for {
		path := filepath.Join(dir, time.Now().UTC().Format("20060102T150405.000000000Z")+traceSuffix)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		switch {
		case errors.Is(err, fs.ErrExist): // the clock has moved on since
			continue
		case err != nil:
			return "", fmt.Errorf("making a file for a recording: %w", err)
		}
		return path, f.Close()
	}
}

// sweep removes what recordings in Config.Dir left that an earlier daemon did
// not end.
func (r *Recordings) sweep() {
	locks, _ := filepath.Glob(filepath.Join(r.cfg.Dir, "*", "*"+traceSuffix+lockSuffix)) // the pattern is right
	for _, lock := range locks {
		path := strings.TrimSuffix(lock, lockSuffix)
		r.mu.Lock()
		begun := r.paths[path]
		r.mu.Unlock()
		if begun {
			continue
		}
		for _, s := range []string{"", planSuffix, dataSuffix, lockSuffix} {
			_ = os.Remove(path + s) // what stays is in nobody's way
		}
	}
}
