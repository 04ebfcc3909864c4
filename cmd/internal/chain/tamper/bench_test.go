package tamper_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// BenchmarkVerify reads a device through all formats from a registry in a
// process of its own on a loopback address, with and without verification in
// turns. "of-unverified" is how fast the verified one is as a part of the other,
// "cpu-of-unverified" the same for the processor time of this process. Pages are
// held, as they are read once. Either there is no cache, and the link is as fast
// as this machine copies, or 1 Gbit/s; or all is in the cache.
func BenchmarkVerify(b *testing.B) {
	l := pack(b, files(b, 16<<20), zfile.Options{Algorithm: zfile.ZSTD})
	b.Run("cached", func(b *testing.B) { benchCached(b, l) })
	for _, link := range []int{0, 125_000_000} {
		b.Run(fmt.Sprintf("link=%dMB", link/1e6), func(b *testing.B) { benchLink(b, l, link) })
	}
}

func benchLink(b *testing.B, l layer, link int) {
	n := newNode(b, &host{name: otherProcess(b, l.data, link)})
	n.cache = nil
	benchNode(b, n, l)
}

// benchCached reads the device, and the blob without the formats, whose time
// would hide what the chain takes.
func benchCached(b *testing.B, l layer) {
	h := newHost(b, l.data)
	n := newNode(b, h)
	verified, plain := n.reopen(b, l, l.ref), n.reopen(b, l, chunks.Ref{})
	for _, r := range []blob.Blob{verified, plain} {
		if got, err := read(b.Context(), r); err != nil || !bytes.Equal(got, l.disk) {
			b.Fatalf("filling the cache: %v", err)
		}
		if err := blob.ReadFull(b.Context(), r, make([]byte, r.Size()), 0); err != nil {
			b.Fatalf("filling the cache: %v", err)
		}
	}
	h.set(func(h *host) { h.down = true }) // a read that is not cached is an error
	b.Run("blob", func(b *testing.B) { benchBoth(b, verified, plain) })
	b.Run("device", func(b *testing.B) { benchNode(b, n, l) })
}

// benchNode compares reads of the device of l with and without verification.
func benchNode(b *testing.B, n *node, l layer) {
	open := func(ref chunks.Ref) *lsmt.Image {
		image, err := backstore.Open(b.Context(), []blob.ReaderAt{n.reopen(b, l, ref)})
		if err != nil {
			b.Fatal(err)
		}
		return image
	}
	benchBoth(b, open(l.ref), open(chunks.Ref{}))
}

func benchBoth(b *testing.B, verified, plain blob.ReaderAt) {
	for _, size := range []int{4 << 10, 128 << 10, 1 << 20} {
		for _, readers := range []int{1, 8} {
			b.Run(fmt.Sprintf("%dKiB/%d-readers", size>>10, readers), func(b *testing.B) {
				benchVerify(b, verified, plain, size, readers)
			})
		}
	}
}

// files returns n bytes of this machine's programs and libraries, which compress
// as those of images do.
func files(b *testing.B, n int) []byte {
	var data []byte
	for _, root := range []string{"/usr/bin", "/usr/lib"} {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || len(data) >= n {
				return nil //nolint:nilerr // whatever can be read will do
			}
			if content, err := os.ReadFile(path); err == nil && len(content) < n/8 {
				data = append(data, content...)
				data = append(data, make([]byte, (4096-len(content)%4096)%4096)...)
			}
			return nil
		})
	}
	if len(data) < n {
		b.Skipf("found only %d bytes of files", len(data))
	}
	return data[:n]
}

// serveEnv and linkEnv name the file that a child process is to serve, and how
// many bytes a second it may send, 0 for as many as it can.
const (
	serveEnv = "TAMPER_SERVE"
	linkEnv  = "TAMPER_LINK"
)

func TestMain(m *testing.M) {
	path := os.Getenv(serveEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	data, err := os.ReadFile(path)
	if err == nil {
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			fmt.Println(l.Addr())
			rate, _ := strconv.Atoi(os.Getenv(linkEnv))
			go func() { err = http.Serve(l, &link{Handler: &host{data: data, flip: -1}, rate: rate}) }()
			_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// link is what an http.Handler answers over: all its responses together get
// rate bytes a second.
type link struct {
	http.Handler
	rate int

	mu   sync.Mutex
	free time.Time // when the link will have sent everything so far
}

// ServeHTTP implements http.Handler.
func (l *link) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.rate > 0 {
		w = &slow{w, l}
	}
	l.Handler.ServeHTTP(w, r)
}

type slow struct {
	http.ResponseWriter
	link *link
}

// Write implements io.Writer.
func (s *slow) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(done+16<<10, len(p))]
		s.link.mu.Lock()
		s.link.free = later(s.link.free, time.Now()).Add(time.Duration(len(part)) * time.Second / time.Duration(s.link.rate))
		free := s.link.free
		s.link.mu.Unlock()
		n, err := s.ResponseWriter.Write(part)
		done += n
		if err != nil {
			return done, err
		}
		if f, ok := s.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		if ahead := time.Until(free); ahead > time.Millisecond { // sleeping less takes longer
			time.Sleep(ahead)
		}
	}
	return done, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// otherProcess serves data from a child process and returns its address.
func otherProcess(b *testing.B, data []byte, link int) string {
	path := filepath.Join(b.TempDir(), "blob")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+path, linkEnv+"="+strconv.Itoa(link))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	var name string
	if _, err := fmt.Fscan(stdout, &name); err != nil {
		b.Fatal(err)
	}
	return name
}

func benchVerify(b *testing.B, verified, plain blob.ReaderAt, size, readers int) {
	rng := rand.New(rand.NewPCG(1, 2))
	each := max(2, (8<<20)/size/readers)
	if size < 64<<10 {
		each = 512 / readers
	}
	var ratios, cpu, took []float64
	b.SetBytes(int64(2 * size * each * readers))
	for b.Loop() {
		offs := make([]int64, each*readers)
		for i := range offs {
			offs[i] = rng.Int64N(plain.Size()/int64(size)) * int64(size)
		}
		var times, used [2]time.Duration
		order := []int{0, 1}
		if rng.IntN(2) == 0 {
			slices.Reverse(order)
		}
		for _, k := range order {
			start := cpuTime(b)
			times[k] = readAt(b, []blob.ReaderAt{verified, plain}[k], offs, size, readers)
			used[k] = cpuTime(b) - start
		}
		ratios = append(ratios, float64(times[1])/float64(times[0]))
		cpu = append(cpu, float64(used[1])/float64(used[0]))
		took = append(took, times[0].Seconds()/float64(len(offs)))
	}
	for _, s := range [][]float64{ratios, cpu, took} {
		slices.Sort(s)
	}
	b.ReportMetric(ratios[len(ratios)/2], "of-unverified")
	b.ReportMetric(cpu[len(cpu)/2], "cpu-of-unverified")
	b.ReportMetric(float64(size)/took[len(took)/2]/1e6, "MB/s")
	b.ReportMetric(0, "ns/op")
}

// cpuTime returns how much processor time this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// readAt reads size bytes at each of the offsets and returns how long it took.
func readAt(b *testing.B, from blob.ReaderAt, offs []int64, size, readers int) time.Duration {
	var wg sync.WaitGroup
	start := time.Now()
	for r := range readers {
		wg.Go(func() {
			p := make([]byte, size)
			for i := r; i < len(offs); i += readers {
				if _, err := from.ReadAt(b.Context(), p, offs[i]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
