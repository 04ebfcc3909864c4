package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/blockd"
	"github.com/reprise-containers/reprise/integration/load/trees"
	"github.com/reprise-containers/reprise/integration/plainfs"
)

const (
	writesDevice = 4 << 30
	writesFiles  = 4000 // in the archive, of 26 KB on average
	writesFile   = 128 << 20
)

// writes are the fio jobs on a file that is all there already.
var writes = []struct {
	name string
	args []string
}{
	{"4k random, one fsync at the end", []string{"--bs=4k", "--io_size=64m", "--end_fsync=1"}},
	{"4k random, fsync each", []string{"--bs=4k", "--io_size=4m", "--fsync=1"}},
	{"4k random, direct, 1 in flight", []string{"--bs=4k", "--io_size=32m", "--direct=1"}},
	{"4k random, direct, 16 in flight", []string{"--bs=4k", "--io_size=64m", "--direct=1", "--ioengine=libaio", "--iodepth=16"}},
	{"1M sequential, one fsync at the end", []string{"--rw=write", "--bs=1M", "--io_size=128m", "--end_fsync=1"}},
}

// writer is a file system that is written.
type writer struct {
	name string
	dir  string
	took map[string][]float64 // seconds, by what was done
}

// writes compares writing to ext4 on our devices with writing to one on a plain
// loop device over a sparse file on the same disk, in turns.
func (b bench) writes(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	archive, err := trees.New(filepath.Join(dir, "archive"), writesFiles, 1)
	if err != nil {
		return err
	}
	plain, err := plainfs.New(filepath.Join(dir, "plain"), plainfs.Options{Type: "ext4", Size: writesDevice,
		Mkfs: strings.Fields("-O ^has_journal,sparse_super,flex_bg -G 1 -E discard -F"), MountOptions: "discard"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	cfg := blockd.Config{Dir: filepath.Join(dir, "ours"), Profile: os.Getenv("WRITES_PROFILE"), Devices: []blockd.Device{
		{ID: "append-only", Size: writesDevice, FSType: "ext4"},
		{ID: "sparse", Size: writesDevice, FSType: "ext4", Sparse: true},
	}}
	if err := cfg.Prepare(); err != nil {
		return err
	}
	d, err := blockd.Start(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop(context.WithoutCancel(ctx))) }()
	ready, err := d.Ready(ctx)
	if err != nil {
		return err
	}
	rivals := []*writer{{name: "loop", dir: plain.Dir, took: map[string][]float64{}}}
	for _, device := range cfg.Devices {
		rivals = append(rivals, &writer{name: device.ID, dir: ready.Paths[device.ID], took: map[string][]float64{}})
	}
	fmt.Printf("\nWriting to ext4 on a writable device, against a plain loop device with direct I/O over a sparse file\n"+
		"(seconds, median of %d; ratios are of speed, median of the rounds')\n", rounds)
	if err := compareWriters(ctx, archive, rivals); err != nil {
		return err
	}
	printWriters(rivals)
	return nil
}

func compareWriters(ctx context.Context, archive *trees.Load, rivals []*writer) error {
	for _, w := range rivals {
		if err := w.fill(); err != nil {
			return err
		}
	}
	for i := range rounds {
		for j := range rivals { // with another one first each time
			w := rivals[(i+j)%len(rivals)]
			if err := w.untar(archive); err != nil {
				return err
			}
			for _, x := range writes {
				if err := w.fio(ctx, x.name, x.args); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fill writes the file for fio.
func (w *writer) fill() error {
	f, err := os.Create(filepath.Join(w.dir, "file"))
	if err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i*i>>7 + i)
	}
	for range writesFile / len(p) {
		if _, err := f.Write(p); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// untar unpacks the archive, syncs, and removes what was unpacked.
func (w *writer) untar(archive *trees.Load) error {
	dir := filepath.Join(w.dir, "tree")
	return errors.Join(
		w.time("untar", func() error { return archive.Unpack(dir) }),
		w.time("sync after untar", w.sync),
		w.time("rm and sync", func() error { return errors.Join(trees.Remove(dir), w.sync()) }),
	)
}

// sync writes this file system out.
func (w *writer) sync() error {
	d, err := os.Open(w.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

func (w *writer) time(what string, f func() error) error {
	begin := time.Now()
	err := f()
	w.took[what] = append(w.took[what], time.Since(begin).Seconds())
	return err
}

// fio writes to the file at random, unless told otherwise.
func (w *writer) fio(ctx context.Context, what string, args []string) error {
	if err := w.sync(); err != nil {
		return err
	}
	argv := append([]string{"--name=x", "--filename=" + filepath.Join(w.dir, "file"), "--size=" + fmt.Sprint(writesFile),
		"--rw=randwrite", "--ioengine=psync", "--norandommap", "--output-format=json"}, args...)
	cmd := exec.CommandContext(ctx, "fio", argv...)
	cmd.Stderr = io.Discard
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("running fio in %s: %w", w.dir, err)
	}
	var r struct {
		Jobs []struct {
			Runtime float64 `json:"job_runtime"` // milliseconds
			Write   struct {
				Bandwidth float64 `json:"bw_bytes"`
				Bytes     float64 `json:"io_bytes"`
			}
		}
	}
	if err := json.Unmarshal(out[max(0, strings.Index(string(out), "{")):], &r); err != nil || len(r.Jobs) == 0 || r.Jobs[0].Write.Bandwidth == 0 {
		return fmt.Errorf("reading fio's output: %w: %.200s", err, out)
	}
	job := r.Jobs[0]
	// With the fsync at the end, which the bandwidth leaves out.
	w.took[what] = append(w.took[what], max(job.Runtime/1000, job.Write.Bytes/job.Write.Bandwidth))
	return nil
}

func printWriters(rivals []*writer) {
	loop := rivals[0]
	fmt.Printf("%-36s %9s", "", loop.name)
	for _, w := range rivals[1:] {
		fmt.Printf(" %12s %7s", w.name, "ratio")
	}
	fmt.Println()
	names := []string{"untar", "sync after untar", "rm and sync"}
	for _, x := range writes {
		names = append(names, x.name)
	}
	for _, name := range append(names[:2:2], append([]string{"untar and sync"}, names[2:]...)...) {
		of := func(w *writer) []float64 {
			if name != "untar and sync" {
				return append([]float64(nil), w.took[name]...)
			}
			var sum []float64
			for i, v := range w.took["untar"] {
				sum = append(sum, v+w.took["sync after untar"][i])
			}
			return sum
		}
		fmt.Printf("%-36s %9.3f", name, median(of(loop)))
		for _, w := range rivals[1:] {
			var ratios []float64
			for i, v := range of(w) {
				ratios = append(ratios, of(loop)[i]/v)
			}
			fmt.Printf(" %12.3f %7.2f", median(of(w)), median(ratios))
		}
		fmt.Println()
	}
}
