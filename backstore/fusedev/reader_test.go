package fusedev_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forget drops the clean pages of f from the page cache, so that the next read
// is a read of the device.
func forget(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func forgetFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return forget(f)
}

// readMain is the reading process. It prints one line per finished task and
// ends with an error at the first wrong one.
//
//	sum DIR              prints the digest of a tree
//	loop DIR SUM [FILE]  compares the digest until stdin ends, each time
//	                     dropping FILE, the device below, from the cache
//	file NAME            reads a file with direct I/O or, failing that, without
//	cat NAME             the same, and prints it
//	forget NAME          drops a file from the cache
//	latency NAME         prints p50 and p99 of random 4 KiB reads
//	flood NAME N         reads N blocks at once and prints how that ended
//	signals NAME         reads a file while it sends signals to itself
func readMain(args []string) error {
	switch args[0] {
	case "sum":
		sum, err := treeSum(args[1])
		fmt.Println(sum)
		return err
	case "loop":
		return readLoop(args[1], args[2], args[3:])
	case "file":
		return readFile(args[1], io.Discard)
	case "cat":
		return readFile(args[1], os.Stdout)
	case "forget":
		return forgetFile(args[1])
	case "latency":
		return readLatency(args[1])
	case "flood":
		return readFlood(args[1], args[2])
	case "signals":
		return readSignals(args[1])
	}
	return fmt.Errorf("unknown task %q", args[0])
}

func readLoop(dir, want string, files []string) error {
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	for n := 1; !stop.Load(); n++ {
		for _, name := range files {
			if err := forgetFile(name); err != nil {
				return err
			}
		}
		sum, err := treeSum(dir)
		if err != nil {
			return err
		}
		if sum != want {
			return fmt.Errorf("round %d: sum is %s, want %s", n, sum, want)
		}
		fmt.Println(n)
	}
	return nil
}

// openDirect opens a file for direct I/O or, failing that, without.
func openDirect(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		fd, err = unix.Open(name, unix.O_RDONLY, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func readFile(name string, w io.Writer) error {
	f, err := openDirect(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, alignedBuffer(64<<10))
	return err
}

func readLatency(name string) error {
	f, err := openDirect(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	p := alignedBuffer(4096)
	var took []time.Duration
	for range 3000 {
		start := time.Now()
		if _, err := f.ReadAt(p, rand.Int64N(st.Size()/4096)*4096); err != nil {
			return err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	fmt.Println(took[len(took)/2], took[len(took)*99/100])
	return nil
}

func readFlood(name, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	f, err := openDirect(name)
	if err != nil {
		return err
	}
	defer f.Close()
	results := make(chan error, n)
	for i := range n {
		go func() {
			_, err := f.ReadAt(alignedBuffer(4096), int64(i)*4096)
			results <- err
		}()
	}
	counts := make(map[string]int)
	for range n {
		err := <-results
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		counts[fmt.Sprint(err)]++
	}
	for what, n := range counts {
		fmt.Println(n, what)
	}
	return nil
}

// readSignals reads a file in one thread, which gets a signal every
// millisecond.
func readSignals(name string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	thread, done := make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		f, err := os.Open(name)
		for p := make([]byte, 64<<10); err == nil; {
			_, err = unix.Read(int(f.Fd()), p)
			if err == nil {
				var off int64
				off, err = f.Seek(0, io.SeekCurrent)
				if st, serr := f.Stat(); serr == nil && off == st.Size() {
					break
				}
			}
		}
		done <- err
	}()
	tid, sent := <-thread, 0
	for {
		select {
		case err := <-done:
			if err == nil && sent == 0 {
				err = errors.New("no signal was sent")
			}
			return err
		case <-time.After(time.Millisecond):
			if err := unix.Tgkill(os.Getpid(), tid, syscall.SIGUSR1); err == nil {
				sent++
			}
		}
	}
}

// alignedBuffer returns a buffer of n bytes that is good for direct I/O.
func alignedBuffer(n int) []byte {
	p, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	return p
}

// sumOf returns the digest of a tree, computed by another process.
func sumOf(t testing.TB, dir string) (string, error) {
	t.Helper()
	out, err := exec.Command("/proc/self/exe", "test-read", "sum", dir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// reader is a process that compares a tree over and over.
type reader struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	rounds atomic.Int64
	stderr strings.Builder
	done   chan error
}

// startReader starts comparing dir with the digest want.
func startReader(t testing.TB, dir, want string, files ...string) *reader {
	t.Helper()
	r := &reader{done: make(chan error, 1)}
	r.cmd = exec.Command("/proc/self/exe", append([]string{"test-read", "loop", dir, want}, files...)...)
	r.cmd.Stderr = &r.stderr
	stdin, err := r.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.stdin = stdin
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			r.rounds.Add(1)
		}
		r.done <- r.cmd.Wait()
	}()
	return r
}

// finish lets the reader end its round and reports what went wrong in any.
func (r *reader) finish(t testing.TB) {
	t.Helper()
	r.stdin.Close()
	if err := <-r.done; err != nil {
		t.Errorf("reader: %v: %s", err, r.stderr.String())
	}
	if r.rounds.Load() == 0 {
		t.Error("reader finished no round")
	}
}
