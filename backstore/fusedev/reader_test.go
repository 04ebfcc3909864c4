package fusedev_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// forget drops the clean pages of f from the page cache, so that the next read
// is a read of the device.
func forget(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// readMain is the reading process. It prints one line per finished task and
// ends with an error at the first wrong one.
//
//	sum DIR              prints the digest of a tree
//	loop DIR SUM [FILE]  compares the digest until stdin ends, each time
//	                     dropping FILE, the device below, from the cache
//	file NAME            reads a file with direct I/O or, failing that, without
func readMain(args []string) error {
	switch args[0] {
	case "sum":
		sum, err := treeSum(args[1])
		fmt.Println(sum)
		return err
	case "loop":
		return readLoop(args[1], args[2], args[3:])
	case "file":
		return readFile(args[1])
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
			f, err := os.Open(name)
			if err == nil {
				err = forget(f)
				f.Close()
			}
			if err != nil {
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

func readFile(name string) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		fd, err = unix.Open(name, unix.O_RDONLY, 0)
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, alignedBuffer(64<<10))
	return err
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
