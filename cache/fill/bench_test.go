package fill_test

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
)

// BenchmarkFollowers sends a cold blob of 200 MB to 100 connections: one fetch, of
// which all are served as it comes. BenchmarkSend is what the kernel does of that by
// itself.
func BenchmarkFollowers(b *testing.B) { benchmarkFollowers(b, 200<<20, 0) }

// BenchmarkFollowersWait is that with an upstream that is slower than the clients, so
// that they wait for each of its pieces. What matters is the processor time.
func BenchmarkFollowersWait(b *testing.B) { benchmarkFollowers(b, 32<<20, time.Millisecond) }

func benchmarkFollowers(b *testing.B, size int64, pace time.Duration) {
	const followers = 100
	r := newRig(b, fill.Config{}, cache.Config{})
	data := random(int(size), 70)
	b.SetBytes(followers * size)
	var sent int64
	began := processorTime(b)
	for b.Loop() {
		b.StopTimer()
		data[0]++ // another blob
		desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: size}
		up := newUpstream(data)
		if pace > 0 {
			up.hook = func(context.Context, *openedBody) error {
				time.Sleep(pace)
				return nil
			}
		}
		b.StartTimer()
		toClients(b, followers, size, func(w *net.TCPConn) error {
			rd, done := r.reader(b.Context(), desc, up.by("a"), 0, size)
			defer done()
			_, err := rd.WriteTo(w)
			return err
		})
		sent += up.bytes()
	}
	b.ReportMetric(float64(processorTime(b)-began)/1e9/float64(b.N), "cpu-s/op")
	b.ReportMetric(float64(sent)/float64(size)/float64(b.N), "upstream/unique")
}

// processorTime returns what the process used so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSend sends a file of 200 MB to 100 connections.
func BenchmarkSend(b *testing.B) {
	const followers, size = 100, 200 << 20
	name := b.TempDir() + "/file"
	if err := os.WriteFile(name, random(size, 70), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(followers * size)
	began := processorTime(b)
	for b.Loop() {
		toClients(b, followers, size, func(w *net.TCPConn) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(w, f)
			return err
		})
	}
	b.ReportMetric(float64(processorTime(b)-began)/1e9/float64(b.N), "cpu-s/op")
}

// toClients has n connections written to, each of which takes size bytes.
func toClients(b *testing.B, n int, size int64, write func(*net.TCPConn) error) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 256<<10)
			got := int64(0)
			for {
				k, err := c.Read(buf)
				if got += int64(k); err != nil {
					break
				}
			}
			if got != size {
				b.Errorf("a client got %d bytes of %d", got, size)
			}
		})
		c, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		all.Go(func() {
			defer c.Close()
			if err := write(c.(*net.TCPConn)); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
}
