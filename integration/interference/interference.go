// Package interference measures how much the reads of one image suffer while
// the registry of another one hangs.
package interference

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

const (
	outstanding = 200   // reads that wait for the registry that hangs
	samples     = 10000 // reads of the other image in one measurement
	stride      = 8     // blocks between two reads that hang
	blockSize   = 4096
)

// Result is the read latency of the healthy image: the 99th percentile of
// 4 KiB reads that go through the whole stack to the daemon's cache.
type Result struct {
	// Alone and Beside are without and with a hanging neighbour, one for
	// each cycle of both.
	Alone, Beside []time.Duration
	// Waiting is the least number of reads that hung meanwhile.
	Waiting int
}

// Ratio is that of the medians.
func (r Result) Ratio() float64 {
	median := func(d []time.Duration) float64 { return float64(slices.Sorted(slices.Values(d))[len(d)/2]) }
	return median(r.Beside) / median(r.Alone)
}

// Measure needs two pulled images: good, and bad, whose registry is reached
// through the proxy. It reads the largest file of both; that of bad must not
// have been read yet.
func Measure(ctx context.Context, n *node.Node, good, bad string, badRegistry *wire.Proxy, cycles int) (res Result, err error) {
	goodFile, unmountGood, err := largest(ctx, n, good, "good")
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, unmountGood()) }()
	badFile, unmountBad, err := largest(ctx, n, bad, "bad")
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, unmountBad()) }()
	if _, err := os.ReadFile(goodFile); err != nil { // now the daemon has it
		return res, err
	}
	res.Waiting = outstanding
	for i := range cycles {
		alone, err := p99(goodFile)
		if err != nil {
			return res, err
		}
		hung, err := hang(ctx, n, badFile, i*outstanding*stride, badRegistry)
		if err != nil {
			return res, err
		}
		beside, err := p99(goodFile)
		badRegistry.Release()
		if err := errors.Join(err, hung.wait()); err != nil {
			return res, err
		}
		res.Alone, res.Beside = append(res.Alone, alone), append(res.Beside, beside)
		res.Waiting = min(res.Waiting, hung.waiting)
	}
	return res, nil
}

// largest mounts a view of an image and returns its largest file.
func largest(ctx context.Context, n *node.Node, ref, name string) (string, func() error, error) {
	dir := n.Path("view-" + name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	if _, err := n.Containerd.Ctr(ctx, "image", "mount", "--snapshotter", "overlaybd", ref, dir); err != nil {
		return "", nil, err
	}
	unmount := func() error {
		_, err := n.Containerd.Ctr(context.WithoutCancel(ctx), "image", "unmount", "--snapshotter", "overlaybd", "--rm", dir)
		return err
	}
	var path string
	var size int64
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			path, size = p, info.Size()
		}
		return err
	})
	if err == nil && size < outstanding*stride*blockSize {
		err = fmt.Errorf("the largest file of %s has only %d bytes", ref, size)
	}
	if err != nil {
		return "", nil, errors.Join(err, unmount())
	}
	return path, unmount, nil
}

// p99 reads random blocks that are in no page cache, one at a time.
func p99(path string) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	took := make([]time.Duration, samples)
	p := make([]byte, blockSize)
	for i := range took {
		off := rand.Int64N(info.Size()/blockSize) * blockSize
		if err := unix.Fadvise(int(f.Fd()), off, blockSize, unix.FADV_DONTNEED); err != nil {
			return 0, err
		}
		start := time.Now()
		if _, err := f.ReadAt(p, off); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[samples*99/100], nil
}

// settled is how long the number of hanging reads stays as it is before no more are
// waited for.
const settled = 3 * time.Second

type hung struct {
	waiting int
	wait    func() error
}

// hang lets the registry hang and starts reads of the file from a block on,
// each of a part that nobody has fetched, in a process each.
func hang(ctx context.Context, n *node.Node, path string, first int, registry *wire.Proxy) (hung, error) {
	registry.SetRule(func(r *http.Request) wire.Fault { return wire.Fault{Hang: wire.Blob(r) != ""} })
	script := fmt.Sprintf(`for i in $(seq 0 %d); do dd if="$1" of=/dev/null bs=%d count=1 skip=$((%d+i*%d)) status=none & done; wait`,
		outstanding-1, blockSize, first, stride)
	result := make(chan error, 1)
	go func() {
		_, err := n.Run(ctx, "/bin/sh", "-c", script, "sh", path)
		result <- err
	}()
	h := hung{wait: func() error { return <-result }}
	// Some reads find their part fetched, with a neighbour's: then the number stays below.
	for start, grown := time.Now(), time.Now(); time.Since(start) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		switch now := len(n.Stuck()); {
		case now >= outstanding:
			h.waiting = now
			return h, nil
		case now != h.waiting:
			h.waiting, grown = now, time.Now()
		case now > 0 && time.Since(grown) > settled:
			return h, nil
		}
	}
	if h.waiting == 0 {
		registry.Release()
		return h, errors.Join(errors.New("no read hangs although the registry does"), h.wait())
	}
	return h, nil
}
