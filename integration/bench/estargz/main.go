// Command estargz converts tar archives to eStargz with the library that
// nerdctl and ctr-remote use, all at once as they do, with its default options.
// It is a module of its own, so that the library is no dependency of anything
// else. Its arguments are an existing folder for the results, and the archives.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/stargz-snapshotter/estargz"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "estargz:", err)
		os.Exit(1)
	}
}

func run(dir string, archives []string) error {
	errs := make([]error, len(archives))
	var all sync.WaitGroup
	for i, path := range archives {
		all.Go(func() {
			errs[i] = convert(path, filepath.Join(dir, fmt.Sprint(i)))
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func convert(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	blob, err := estargz.Build(io.NewSectionReader(in, 0, info.Size()))
	if err != nil {
		return fmt.Errorf("converting %s: %w", from, err)
	}
	out, err := os.Create(to)
	if err != nil {
		return errors.Join(err, blob.Close())
	}
	_, err = io.Copy(out, blob)
	return errors.Join(err, blob.Close(), out.Close())
}
