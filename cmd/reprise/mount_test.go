package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
)

// content is a file of the test image that cannot be compressed.
func content() []byte {
	b := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// ext4Layer returns an overlaybd layer with a file system that has content in
// it twice. It skips the test where that cannot be made or mounted.
func ext4Layer(t *testing.T) []byte {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	mkfs, err := exec.LookPath("/usr/sbin/mkfs.ext4")
	if err != nil {
		t.Skip("no mkfs.ext4")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse")
	}
	dir := t.TempDir()
	tree, disk := filepath.Join(dir, "tree"), filepath.Join(dir, "disk")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "other"} {
		if err := os.WriteFile(filepath.Join(tree, name), content(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(mkfs, "-q", "-b", "4096", "-O", "^has_journal", "-d", tree, disk, "16M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := blob.OpenFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stream, layer bytes.Buffer
	if err := lsmt.CommitDisk(t.Context(), &stream, f, lsmt.DiskOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := zfile.Compress(&layer, &stream, zfile.Options{}); err != nil {
		t.Fatal(err)
	}
	return layer.Bytes()
}

// mounted is reprise mount running beside the test.
type mounted struct {
	dir  string
	done chan result
	stop context.CancelFunc
}

// startMount runs reprise mount and waits until it says that dir is mounted.
func startMount(t *testing.T, args ...string) *mounted {
	t.Helper()
	return startMountOn(t, emptyDir(t), args...)
}

func startMountOn(t *testing.T, dir string, args ...string) *mounted {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	m := &mounted{dir: dir, done: make(chan result, 1), stop: cancel}
	args = append(append([]string{"reprise", "mount"}, args...), dir)
	r, w := io.Pipe()
	ended := make(chan result, 1)
	go func() {
		var log bytes.Buffer
		app := newApp()
		app.Writer, app.ErrWriter = w, &log
		code := exitCode(app.Run(ctx, args), &log)
		w.Close()
		ended <- result{"", log.String(), code}
	}()
	t.Cleanup(cancel)
	lines := bufio.NewReader(r)
	said, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("ended: %+v", <-ended)
	}
	go func() {
		rest, _ := io.ReadAll(lines)
		res := <-ended
		res.out = said + string(rest)
		m.done <- res
	}()
	return m
}

func emptyDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// end waits for the command.
func (m *mounted) end(t *testing.T) result {
	t.Helper()
	r := <-m.done
	if isMount(t, m.dir) {
		t.Error("still mounted after the end")
	}
	return r
}

// isMount asks the kernel's tables, not the mount, which may not answer.
func isMount(t *testing.T, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), " "+dir+" ")
}

func wantFile(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(b, content()) {
		t.Errorf("%s differs, %v", path, err)
	}
}

func TestMountFromARegistry(t *testing.T) {
	layer := ext4Layer(t)
	r := newRegistry(t)
	r.tags["1"] = r.image(t, layer).Digest
	cache := filepath.Join(t.TempDir(), "cache")
	m := startMount(t, "--hosts-dir="+t.TempDir(), "--cache-dir="+cache, r.ref("1"))
	wantFile(t, m.dir+"/file")
	if n := r.served.Load(); n > int64(len(layer))*3/4 {
		t.Errorf("reading half of the files fetched %d of %d bytes", n, len(layer))
	}
	if err := os.WriteFile(m.dir+"/new", nil, 0o644); err == nil {
		t.Error("the mount is writable")
	}
	m.stop()
	got := m.end(t)
	if got.code != exitOK || !strings.Contains(got.out, "is mounted on "+m.dir+" (ext4, 16.0 MiB)") || !strings.Contains(got.out, "% hits") {
		t.Errorf("%+v", got)
	}
	// A second mount reads from the cache what the first one read.
	r.served.Store(0)
	m = startMount(t, "--hosts-dir="+t.TempDir(), "--cache-dir="+cache, r.ref("1"))
	wantFile(t, m.dir+"/file")
	if n := r.served.Load(); n > 256<<10 {
		t.Errorf("reading again fetched %d bytes", n)
	}
	m.stop()
	if got := m.end(t); got.code != exitOK {
		t.Errorf("%+v", got)
	}
}

func TestMountWaitsForItsUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(file, ext4Layer(t), 0o644); err != nil {
		t.Fatal(err)
	}
	m := startMount(t, file)
	f, err := os.Open(m.dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	m.stop()
	wantFile(t, m.dir+"/other") // still served
	select {
	case r := <-m.done:
		t.Errorf("ended under an open file: %+v", r)
	default:
	}
	f.Close()
	if got := m.end(t); got.code != exitOK {
		t.Errorf("%+v", got)
	}
}

func TestMountEndsWhenSomebodyElseUnmounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(file, ext4Layer(t), 0o644); err != nil {
		t.Fatal(err)
	}
	m := startMount(t, file)
	wantFile(t, m.dir+"/file")
	if err := unix.Unmount(m.dir, 0); err != nil {
		t.Fatal(err)
	}
	if got := m.end(t); got.code != exitOK {
		t.Errorf("%+v", got)
	}
}

// startProcess runs reprise mount as a process of its own and waits until it
// says that the returned directory is mounted.
func startProcess(t *testing.T, log io.Writer, image string) (*exec.Cmd, string) {
	t.Helper()
	dir := emptyDir(t)
	cmd := exec.Command("/proc/self/exe", "mount", image, dir)
	cmd.Env = append(os.Environ(), runAsMain+"=1")
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("said %q: %v", line, err)
	}
	return cmd, dir
}

// TestMountCutsItsUsersOff interrupts the command twice while a file is open.
func TestMountCutsItsUsersOff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(file, ext4Layer(t), 0o644); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd, dir := startProcess(t, w, file)
	w.Close()
	f, err := os.Open(dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(r)
	for _, part := range []string{"is in use", "get I/O errors"} {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || !strings.Contains(lines.Text(), part) {
			t.Errorf("said %q, want %q", lines.Text(), part)
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("ended with %v", err)
	}
	if _, err := io.Copy(io.Discard, f); err == nil {
		t.Error("a read succeeded although nobody serves it")
	}
	if isMount(t, dir) {
		t.Error("still mounted")
	}
}

// TestMountSurvivesAKill kills the command while its mount is used and gives it
// again.
func TestMountSurvivesAKill(t *testing.T) {
	file := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(file, ext4Layer(t), 0o644); err != nil {
		t.Fatal(err)
	}
	first, dir := startProcess(t, nil, file)
	if err := first.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	first.Wait()
	read := make(chan []byte, 1)
	go func() {
		b, _ := os.ReadFile(dir + "/file")
		read <- b
	}()
	m := startMountOn(t, dir, file)
	if b := <-read; !bytes.Equal(b, content()) {
		t.Errorf("read %d bytes that differ", len(b))
	}
	m.stop()
	if got := m.end(t); got.code != exitOK {
		t.Errorf("%+v", got)
	}
}

func TestMountRefuses(t *testing.T) {
	if os.Geteuid() != 0 {
		if r := reprise(t, "mount", vectors+"edge/empty.raw.lsmt", t.TempDir()); r.code != exitFailed || !strings.Contains(r.err, "needs root") {
			t.Errorf("%+v", r)
		}
		t.Skip("the rest needs root")
	}
	dir := t.TempDir()
	for _, c := range []struct{ image, dir, part string }{
		{vectors + "edge/sealed.sealed.lsmt", dir, "superblock"},
		{vectors + "edge/sealed.sealed.lsmt", dir + "/none", "no such file"},
		{vectors + "edge/sealed.sealed.lsmt", "main.go", "not a directory"},
		{"./none", dir, "no such file"},
	} {
		if r := reprise(t, "mount", c.image, c.dir); r.code != exitFailed || !strings.Contains(r.err, c.part) || isMount(t, dir) {
			t.Errorf("%s on %s: %+v, want %q", c.image, c.dir, r, c.part)
		}
	}
}
