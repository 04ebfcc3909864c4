// Package outcome reads and writes the two files that scripts around the trace
// replayer read: the interim map, which warmup makes and run needs, and the results
// of a run. Both have the shape they had in the original replayer.
package outcome

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Bad is the value of a URI whose content could not be pushed.
const Bad = "bad"

// Map says by which digest the content stands in the registry that stands for a URI
// of the trace, or that it is Bad.
type Map map[string]string

// Digest returns the digest for a URI, false when it is bad or not there.
func (m Map) Digest(uri string) (digest.Digest, bool) {
	v, ok := m[uri]
	return digest.Digest(v), ok && v != Bad
}

// ReadMap reads an interim map: one JSON object of strings. Its error names the URI
// whose value is neither a digest nor Bad. A file that is not there is fs.ErrNotExist.
func ReadMap(path string) (Map, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the interim map: %w", err)
	}
	m, err := ParseMap(text)
	if err != nil {
		return nil, fmt.Errorf("reading the interim map %s: %w", path, err)
	}
	return m, nil
}

// ParseMap parses the text of an interim map.
func ParseMap(text []byte) (Map, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	var m Map
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("it is no JSON object of strings: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more behind the object")
	}
	if m == nil {
		return nil, errors.New("it is no JSON object")
	}
	for uri, v := range m {
		if v == Bad {
			continue
		}
		if err := digest.Digest(v).Validate(); err != nil {
			return nil, fmt.Errorf("%s: %.80q is neither a digest nor %q", uri, v, Bad)
		}
	}
	return m, nil
}

// Write puts the map into a file, sorted by URI, a line each. The file is there as a
// whole or as it was before.
func (m Map) Write(path string) error {
	err := replace(path, func(w io.Writer) error {
		between := "{\n"
		for _, uri := range slices.Sorted(maps.Keys(m)) {
			key, err := json.Marshal(uri)
			if err != nil {
				return err
			}
			value, err := json.Marshal(m[uri])
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "%s%s: %s", between, key, value); err != nil {
				return err
			}
			between = ",\n"
		}
		if len(m) == 0 {
			_, err := io.WriteString(w, "{}\n")
			return err
		}
		_, err := io.WriteString(w, "\n}\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the interim map: %w", err)
	}
	return nil
}

var errSpecial = errors.New("it is not a regular file")

// replace writes a file beside path and puts it in its place. Of a link, what it leads
// to is replaced; what is a device stays one.
func replace(path string, write func(io.Writer) error) error {
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			return &fs.PathError{Op: "replacing", Path: path, Err: errSpecial}
		}
		mode = info.Mode().Perm()
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	w := bufio.NewWriterSize(f, 256<<10)
	err = errors.Join(write(w), w.Flush(), f.Chmod(mode), f.Sync())
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
