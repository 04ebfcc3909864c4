package mounter

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Kinds of records about a mount point, which a job leaves for later ones.
const (
	// writableRecord is there from before a writable file system is mounted
	// until its end is certain. It contains the device's file.
	writableRecord = "writable"

	// frozenRecord is there while a file system is frozen, or may be.
	frozenRecord = "frozen"
)

func (j Job) recordFile(kind string) string {
	return filepath.Join(j.Dir, kind+"-"+strings.ReplaceAll(strings.TrimPrefix(j.Target, "/"), "/", ":"))
}

// note records text about j.Target.
func (j Job) note(kind, text string) error {
	return os.WriteFile(j.recordFile(kind), []byte(text), 0o600)
}

// noted returns what was recorded about j.Target, "" if nothing was.
func (j Job) noted(kind string) (string, error) {
	p, err := os.ReadFile(j.recordFile(kind))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(p), err
}

// forget removes a record about j.Target, if there is one.
func (j Job) forget(kind string) error {
	err := os.Remove(j.recordFile(kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
