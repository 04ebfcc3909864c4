package fusedev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// record is what is kept of a device in the state directory, as <id>.json.
type record struct {
	Node uint64 `json:"node"` // inode number
	Size int64  `json:"size"` // in bytes

	Writable bool `json:"writable,omitempty"`
}

// saveRecord writes the record of device id, all or nothing.
func saveRecord(dir, id string, r record) error {
	p, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, id+".json")
	if err := os.WriteFile(name+".new", p, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// removeRecord removes the record of device id, if there is one.
func removeRecord(dir, id string) error {
	err := os.Remove(filepath.Join(dir, id+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// loadRecords reads the records of all devices.
func loadRecords(dir string) (map[string]record, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	records := make(map[string]record)
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue // a write that did not finish
		}
		p, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		var r record
		if err := json.Unmarshal(p, &r); err != nil {
			return nil, fmt.Errorf("parsing %s: %w", filepath.Join(dir, e.Name()), err)
		}
		if err := checkID(id); err != nil || r.Node <= rootNode || r.Size < 0 {
			return nil, fmt.Errorf("%s is not the record of a device", filepath.Join(dir, e.Name()))
		}
		records[id] = r
	}
	return records, nil
}

// clearRecords forgets all devices. It is for a new FUSE file system, in which
// the inode numbers of the old one mean nothing.
func clearRecords(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o700)
}

// checkID checks that id can be a file name that reads the same in mountinfo
// and sysfs.
func checkID(id string) error {
	const limit = 128
	if id == "" || len(id) > limit || id[0] == '.' {
		return fmt.Errorf("device ID %q must have 1 to %d bytes and not start with a dot", id, limit)
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '_', c == '.', c == ':':
		default:
			return fmt.Errorf("device ID %q contains %q: only letters, digits and -_.: are allowed", id, c)
		}
	}
	return nil
}
