package files

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

type kind uint8

const (
	put kind = iota // new content under a name
	rename
	remove
	sync // of the folder
)

// op is an operation. What has no file to act on does nothing.
type op struct {
	kind     kind
	from, to uint8
}

// names is how many names a worker uses.
const names = 40

func name(n uint8) string { return fmt.Sprintf("file-%02d", n) }

// unfinished is the name of what has no name yet.
const unfinished = "unfinished"

func choose(r *rand.Rand) op {
	o := op{put, uint8(r.IntN(names)), uint8(r.IntN(names))}
	switch p := r.IntN(100); {
	case p < 15:
		o.kind = sync
	case p < 35:
		o.kind = rename
	case p < 55:
		o.kind = remove
	}
	return o
}

// do does the operation with number seq in a folder.
func (o op) do(dir string, seed uint64, w, seq uint32) (err error) {
	from, to := filepath.Join(dir, name(o.from)), filepath.Join(dir, name(o.to))
	switch o.kind {
	case put:
		from = filepath.Join(dir, unfinished)
		if err = write(from, content(seed, w, seq)); err == nil {
			err = os.Rename(from, to)
		}
		return err
	case rename:
		err = os.Rename(from, to)
	case remove:
		err = os.Remove(to)
	case sync:
		var d *os.File
		if d, err = os.Open(dir); err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// folder is which content is under which name, 0 for none.
type folder [names]uint32

// apply returns the folder after an operation.
func (f folder) apply(o op, seq uint32) folder {
	switch {
	case o.kind == put:
		f[o.to] = seq
	case o.kind == remove:
		f[o.to] = 0
	case o.kind == rename && f[o.from] != 0 && o.from != o.to:
		f[o.to], f[o.from] = f[o.from], 0
	}
	return f
}
