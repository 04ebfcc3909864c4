package files_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/load/files"
	"github.com/reprise-containers/reprise/integration/plainfs"
)

// newFileSystem makes an ext4 on a plain loop device.
func newFileSystem(t testing.TB) *plainfs.FileSystem {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	fs, err := plainfs.New(t.TempDir(), plainfs.Options{Type: "ext4", Size: 128 << 20, Mkfs: []string{"-q"}})
	check(t, err)
	t.Cleanup(func() { check(t, fs.Close()) })
	return fs
}

// load loads with so many operations more, then does end, and waits.
func load(t testing.TB, l *files.Load, dir string, ops int64, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	begin := l.Done()
	go func() { done <- l.Run(ctx, dir) }()
	for l.Done() < begin+ops {
		select {
		case err := <-done:
			t.Fatalf("the load ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	end()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestPowerLoss shuts a file system down again and again under load.
func TestPowerLoss(t *testing.T) {
	fs := newFileSystem(t)
	l := files.New(4, 1)
	for range 10 {
		load(t, l, fs.Dir, 300, func() { check(t, fs.LosePower()) })
		check(t, fs.Unmount())
		check(t, fs.Mount())
		s, err := l.Check(fs.Dir, l.Durable())
		if err != nil {
			t.Fatal(err)
		}
		l.Adopt(s)
	}
	t.Logf("%d operations", l.Done())
}

// TestUnmounted loses nothing.
func TestUnmounted(t *testing.T) {
	fs := newFileSystem(t)
	l := files.New(4, 2)
	for range 3 {
		load(t, l, fs.Dir, 300, func() {})
		check(t, fs.Unmount())
		check(t, fs.Check())
		check(t, fs.Mount())
		if _, err := l.Check(fs.Dir, l.Acknowledged()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFaults damages what was loaded.
func TestFaults(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, l *files.Load, dir string){
		"removed": func(t *testing.T, l *files.Load, dir string) {
			check(t, os.Remove(some(t, dir)))
		},
		"a byte is another": func(t *testing.T, l *files.Load, dir string) {
			file := some(t, dir)
			p, err := os.ReadFile(file)
			check(t, err)
			p[len(p)-1]++
			check(t, os.WriteFile(file, p, 0o600))
		},
		"cut": func(t *testing.T, l *files.Load, dir string) {
			check(t, os.Truncate(some(t, dir), 20))
		},
		"longer": func(t *testing.T, l *files.Load, dir string) {
			file := some(t, dir)
			st, err := os.Stat(file)
			check(t, err)
			check(t, os.Truncate(file, st.Size()+1))
		},
		"in another place": func(t *testing.T, l *files.Load, dir string) {
			check(t, os.Rename(some(t, dir+"/worker-0"), dir+"/worker-1/file-00"))
		},
		"old again": func(t *testing.T, l *files.Load, dir string) {
			old := t.TempDir()
			check(t, os.CopyFS(old+"/then", os.DirFS(dir)))
			load(t, l, dir, 400, func() {})
			check(t, os.RemoveAll(dir+"/worker-2"))
			check(t, os.CopyFS(dir+"/worker-2", os.DirFS(old+"/then/worker-2")))
		},
		"nobody's": func(t *testing.T, l *files.Load, dir string) {
			check(t, os.WriteFile(dir+"/worker-3/file-77", nil, 0o600))
		},
		"a folder is gone": func(t *testing.T, l *files.Load, dir string) {
			check(t, os.RemoveAll(dir+"/worker-3"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := files.New(4, 3)
			load(t, l, dir, 400, func() {})
			if _, err := l.Check(dir, l.Acknowledged()); err != nil {
				t.Fatal(err)
			}
			damage(t, l, dir)
			var fault *files.FaultError
			if _, err := l.Check(dir, l.Acknowledged()); !errors.As(err, &fault) {
				t.Fatalf("not found out: %v", err)
			}
			t.Log(fault)
		})
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// some returns one of the files.
func some(t *testing.T, dir string) string {
	t.Helper()
	for _, pattern := range []string{"/*/file-*", "/file-*"} {
		if found, _ := filepath.Glob(dir + pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("no files")
	return ""
}
