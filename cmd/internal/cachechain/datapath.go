package cachechain

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Names within the data path.
const (
	markerName = "registry-cache.json" // says that the folder is one of ours; locked
	cacheDir   = "content"
	indexDir   = "index"
)

// layoutVersion is the arrangement of what is in the data path.
const layoutVersion = 1

var (
	// ErrForeign says that a folder has something in it and is no data path.
	ErrForeign = errors.New("the folder is not empty and no registry cache's: give an empty one, as files in it would be taken for garbage")
	// ErrInUse says that another process uses the data path.
	ErrInUse = errors.New("another process uses it")
)

// DataPath is the folder all state is in, locked for one process.
type DataPath struct {
	Dir    string
	marker *os.File
	// Salt is the same for as long as the folder exists: for names in logs that
	// must not be found out.
	Salt []byte
}

type marker struct {
	Version int    `json:"version"`
	Salt    string `json:"salt"` // hexadecimal
}

// OpenDataPath makes the folder if need be and locks it. What it refuses it leaves
// as it is.
func OpenDataPath(dir string) (_ *DataPath, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening dataPath %s: %w", dir, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := recognise(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, markerName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	d := &DataPath{Dir: dir, marker: f}
	if err := d.lock(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for _, sub := range []string{cacheDir, indexDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return d, nil
}

// recognise refuses a folder that has something in it, but not the marker. What a
// new file system has in it does not count.
func recognise(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, markerName)); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(16)
		for _, name := range names {
			if name != "lost+found" {
				return ErrForeign
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lock locks the marker, and reads it, or writes it if it is new.
func (d *DataPath) lock() error {
	err := unix.Flock(int(d.marker.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrInUse
	}
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(d.marker, 4096))
	if err != nil {
		return err
	}
	if len(text) == 0 { // new, or its maker was killed right then
		return d.write()
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("reading %s: %w", markerName, err)
	}
	if m.Version != layoutVersion {
		return fmt.Errorf("%s is of version %d, this program knows %d", markerName, m.Version, layoutVersion)
	}
	d.Salt, err = hex.DecodeString(m.Salt)
	return err
}

func (d *DataPath) write() error {
	d.Salt = make([]byte, 16)
	rand.Read(d.Salt)
	text, err := json.Marshal(marker{layoutVersion, hex.EncodeToString(d.Salt)})
	if err != nil {
		return err
	}
	if _, err := d.marker.WriteAt(append(text, '\n'), 0); err != nil {
		return err
	}
	return d.marker.Sync()
}

// Free returns the bytes that are free on the file system of the folder, for those
// who are not root.
func (d *DataPath) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.marker.Fd()), &st); err != nil {
		return 0, fmt.Errorf("looking at the file system of %s: %w", d.Dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Close unlocks the folder.
func (d *DataPath) Close() error { return d.marker.Close() }
