package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Large is an image of more than 1 GB and 30,000 files: Python, then numpy and
// scipy, then what a build machine has, then a layer that changes things all
// over it.
func Large() Layered {
	i := Sizeable()
	i.Name = "large"
	i.Steps = slices.Insert(i.Steps, len(i.Steps)-1,
		Step{Rootfs: Rootfs{Packages: []string{"libboost1.74-dev", "golang-1.19-src", "golang-1.19-go", "linux-headers-amd64"}}})
	return i
}

// Sizeable is Large without what a build machine has: a third of its bytes and a
// seventh of its files, for tests that are run often.
func Sizeable() Layered {
	return Layered{Name: "sizeable", Version: 1, Args: ScipyCommand(), Steps: []Step{
		{Rootfs: python()},
		{Rootfs: Scipy(), Compression: Zstd},
		{Edit: tidy},
	}}
}

// tidy does what the last step of a build often does: it removes documentation,
// changes configuration and owners, and upgrades files in place.
func tidy(root string) error {
	docs, err := filepath.Glob(filepath.Join(root, "usr/share/doc/lib*"))
	if err != nil || len(docs) == 0 {
		return errors.Join(err, errors.New("found no documentation to remove"))
	}
	for _, d := range docs {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	n := 0
	return filepath.WalkDir(filepath.Join(root, "usr"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		n++
		when := time.Unix(1_600_000_000+int64(n), 123_456_789)
		switch {
		case n%200 == 1:
			return errors.Join(os.Lchown(p, 1000, 1000), os.Chtimes(p, when, when))
		case n%200 == 2 && d.Type().IsRegular() && strings.HasSuffix(p, ".h"):
			return appendTo(p, fmt.Sprintf("/* upgrade %d */\n", n))
		case n%200 == 3 && d.Type().IsRegular() && strings.HasSuffix(p, ".py"):
			return os.Chmod(p, 0o600)
		}
		return nil
	})
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
