package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/reprise-containers/reprise/backstore"
)

// layout knows where things lie below the root. A snapshot's directory is
// named after its id in the metastore:
//
//	metadata.db
//	new/                        directories being prepared, emptied at start
//	snapshots/<id>/fs/          files of an ordinary layer or a container
//	snapshots/<id>/work/        overlayfs' work directory (active only)
//	snapshots/<id>/block/       only if the snapshot is an image snapshot, or has
//	                            a writable device
//	snapshots/<id>/block/config.v1.json
//	snapshots/<id>/block/mountpoint/
//	snapshots/<id>/block/writable.json, writable_data, writable_index
//	                            only if the snapshot has a writable device
//	snapshots/<id>/image_ref    reference of the image, if known
//	snapshots/<id>/record/      only if the snapshot has a device of its own,
//	                            whose reads are recorded; it is mounted there
type layout struct{ root string }

func (l layout) metadata() string          { return filepath.Join(l.root, "metadata.db") }
func (l layout) staging() string           { return filepath.Join(l.root, "new") }
func (l layout) snapshots() string         { return filepath.Join(l.root, "snapshots") }
func (l layout) snapshot(id string) string { return filepath.Join(l.root, "snapshots", id) }
func (l layout) fs(id string) string       { return filepath.Join(l.snapshot(id), "fs") }
func (l layout) work(id string) string     { return filepath.Join(l.snapshot(id), "work") }
func (l layout) block(id string) string    { return filepath.Join(l.snapshot(id), "block") }
func (l layout) record(id string) string   { return filepath.Join(l.snapshot(id), "record") }

// mountpoint returns where the attachment id is mounted: an image snapshot of
// that id, or what recordID gives.
func (l layout) mountpoint(id string) string {
	if snapshot, ok := strings.CutSuffix(id, recordSuffix); ok {
		return l.record(snapshot)
	}
	return filepath.Join(l.block(id), "mountpoint")
}

// recordSuffix makes the name of an attachment from the id of a snapshot that
// has it for itself.
const recordSuffix = "-record"

// recordID names the attachment of a snapshot that is recorded.
func recordID(snapshot string) string { return snapshot + recordSuffix }

// recorded reports whether the snapshot id has an attachment of its own.
func (l layout) recorded(id string) (bool, error) {
	_, err := os.Lstat(l.record(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// image returns what the image snapshot id is made of now.
func (l layout) image(id string) (backstore.Image, error) {
	config, err := readConfig(l.snapshot(id))
	if err != nil {
		return backstore.Image{}, err
	}
	return config.image()
}

// create makes the directories below root. What an earlier process had not
// finished is deleted: nothing in the metastore names it.
func (l layout) create() error {
	if err := os.RemoveAll(l.staging()); err != nil {
		return err
	}
	for _, dir := range []string{l.staging(), l.snapshots()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// stage makes a directory that is to be renamed to snapshot(id) once there is
// an id. The caller removes it.
func (l layout) stage(kind snapshots.Kind) (string, error) {
	dir, err := os.MkdirTemp(l.staging(), "")
	if err != nil {
		return "", fmt.Errorf("staging a snapshot: %w", err)
	}
	err = os.Mkdir(filepath.Join(dir, "fs"), 0o755)
	if err == nil && kind == snapshots.KindActive {
		err = os.Mkdir(filepath.Join(dir, "work"), 0o711)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("staging a snapshot: %w", err), os.RemoveAll(dir))
	}
	return dir, nil
}

// isImage reports whether id is an image snapshot. The directory decides and
// not the file in it, so that a lost file is an error and not an empty layer.
func (l layout) isImage(id string) (bool, error) {
	_, err := os.Lstat(l.block(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// remove deletes the directory of a snapshot. It fails without deleting
// anything if an image is still mounted in it: Rmdir says so without a look
// at the mounted file system, which may hang.
func (l layout) remove(id string) error {
	for _, mountpoint := range []string{l.mountpoint(id), l.record(id)} {
		if err := os.Remove(mountpoint); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.RemoveAll(l.snapshot(id))
}

// writeFile replaces dir/name atomically and durably.
func writeFile(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, "."+name+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
