package registrycache_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

// mountMemory mounts a file system of its own in memory and returns its folder.
func mountMemory(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
			unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // it was reported
		}
	})
	return dir
}

// TestDiskFull has less disk than the blobs need, and a limit that knows nothing
// of it. Everybody gets the right bytes all the same.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := mountMemory(t, "size=24m")
	over := calm(values{"disk": values{"maxSize": "1GB", "minFree": "0B"}})
	r := beginWith(t, instance.Config{Data: filepath.Join(dir, "data"), Values: over})
	large, small := origin.Random(80, 40<<20), origin.Random(81, 8<<20)
	want := large.Bytes()
	r.up.AddBlob("a/b", large)
	r.up.AddBlob("a/b", small)
	for range 2 {
		err := swarm.Run(r.ctx, 8, func(ctx context.Context, _ int) error {
			_, err := r.target("").Pull(ctx, swarm.Pull{Repo: "a/b", Digest: large.Digest, Want: want})
			return err
		})
		if err != nil {
			t.Errorf("a blob larger than the disk: %v", err)
		}
		r.pull("", "a/b", small)
	}
	// Somebody else fills it.
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	f.Close()
	another := origin.Random(82, 1<<20)
	r.up.AddBlob("a/b", another)
	r.pull("", "a/b", another)
	r.pull("", "a/b", small)
	r.restart()
	r.pull("", "a/b", small)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.eventually("it stores again when there is room", func() bool {
		r.pull("", "a/b", another)
		before := r.up.Stats().Blobs[another.Digest].Gets
		r.pull("", "a/b", another)
		return r.up.Stats().Blobs[another.Digest].Gets == before
	})
}

// TestReadOnlyDisk restarts on a file system that was made read-only: a cache that
// says clearly that it can not start, or one that serves.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	dir := mountMemory(t, "size=64m")
	r := beginWith(t, instance.Config{Data: filepath.Join(dir, "data"), Values: calm(values{"disk": values{"minFree": "0B"}})})
	kept, other := origin.Random(83, 1<<20), origin.Random(84, 1<<20)
	r.up.AddBlob("a/b", kept)
	r.up.AddBlob("a/b", other)
	r.pull("", "a/b", kept)
	if err := r.cache.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	err := r.cache.Start(r.ctx)
	if err == nil {
		r.pull("", "a/b", kept)
		r.pull("", "a/b", other)
	} else {
		t.Logf("it does not start: %v", err)
		r.cache.Forget()
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		if err := r.cache.Start(r.ctx); err != nil {
			t.Fatal(err)
		}
	}
	r.up.Reset()
	r.pull("", "a/b", kept)
	if c := r.up.Stats().Blobs[kept.Digest]; c.Gets != 0 {
		t.Errorf("%d GETs of what was kept", c.Gets)
	}
}

// TestFoldersImmutable has nothing be made, renamed or removed in the folders of a
// running cache: a disk that turned read-only under it.
func TestFoldersImmutable(t *testing.T) {
	t.Parallel()
	s := beginStocked(t, nil)
	s.restart()
	thaw := freeze(t, s.cache.Data)
	defer thaw()
	fresh := origin.Random(85, 3<<20)
	want := fresh.Bytes()
	s.up.AddBlob("a/b", fresh)
	s.all()
	err := swarm.Run(s.ctx, 8, func(ctx context.Context, _ int) error {
		_, err := s.target("").Pull(ctx, swarm.Pull{Repo: "a/b", Digest: fresh.Digest, Want: want})
		return err
	})
	if err != nil {
		t.Error(err)
	}
	thaw()
	s.eventually("it stores again", func() bool {
		s.pull("", "a/b", fresh)
		before := s.up.Stats().Blobs[fresh.Digest].Gets
		s.pull("", "a/b", fresh)
		return s.up.Stats().Blobs[fresh.Digest].Gets == before
	})
}

// freeze sets the immutable attribute on all folders below dir and returns how to
// take it off again.
func freeze(t *testing.T, dir string) func() {
	t.Helper()
	var frozen []string
	thaw := func() {
		for _, d := range frozen {
			if err := setImmutable(d, false); err != nil {
				t.Errorf("thawing %s: %v", d, err)
			}
		}
		frozen = nil
	}
	t.Cleanup(thaw)
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if err := setImmutable(p, true); err != nil {
			return err
		}
		frozen = append(frozen, p)
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
		thaw()
		t.Skip("folders can't be made immutable here: ", err)
	case err != nil:
		thaw()
		t.Fatal(err)
	}
	return thaw
}

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

func setImmutable(dir string, on bool) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	flags &^= immutable
	if on {
		flags |= immutable
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// TestDamagedFiles damages files of a stopped cache in the ways that can be seen:
// what is served afterwards is right.
func TestDamagedFiles(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, s *stocked){
		"data cut":        func(t *testing.T, s *stocked) { truncate(t, s.fileOf(s.blobs[0].Digest, ".data"), 1000) },
		"data empty":      func(t *testing.T, s *stocked) { truncate(t, s.fileOf(s.blobs[0].Digest, ".data"), 0) },
		"data longer":     func(t *testing.T, s *stocked) { truncate(t, s.fileOf(s.blobs[0].Digest, ".data"), 3<<20) },
		"metadata cut":    func(t *testing.T, s *stocked) { truncate(t, s.fileOf(s.blobs[0].Digest, ".json"), 10) },
		"metadata empty":  func(t *testing.T, s *stocked) { truncate(t, s.fileOf(s.blobs[0].Digest, ".json"), 0) },
		"manifest cut":    func(t *testing.T, s *stocked) { truncate(t, s.fileOf(s.manifest, ".data"), 3) },
		"all cut to half": func(t *testing.T, s *stocked) { cutAll(t, s) },
		"data is another's": func(t *testing.T, s *stocked) {
			if err := os.Rename(s.fileOf(s.blobs[0].Digest, ".data"), s.fileOf(s.blobs[1].Digest, ".data")); err != nil {
				t.Fatal(err)
			}
		},
		"metadata is another's": func(t *testing.T, s *stocked) {
			if err := os.Rename(s.fileOf(s.blobs[0].Digest, ".json"), s.fileOf(s.blobs[1].Digest, ".json")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := beginStocked(t, nil)
			if err := s.cache.Stop(); err != nil {
				t.Fatal(err)
			}
			damage(t, s)
			if err := s.cache.Start(s.ctx); err != nil {
				t.Fatal(err)
			}
			s.all()
			s.collect("verify")
			s.all()
		})
	}
}

func truncate(t *testing.T, name string, size int64) {
	t.Helper()
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
}

// cutAll cuts every file to its half, the marks of the folder excepted.
func cutAll(t *testing.T, s *stocked) {
	t.Helper()
	files, err := s.cache.Files()
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if filepath.Dir(name) == "." {
			continue
		}
		p := filepath.Join(s.cache.Data, name)
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		truncate(t, p, info.Size()/2)
	}
}

// TestDamagedWhileRunning cuts a file under a running cache: readers see a broken
// connection or the right bytes, and the next has them right.
func TestDamagedWhileRunning(t *testing.T) {
	s := beginStocked(t, nil)
	s.restart()
	blob := s.blobs[3]
	truncate(t, s.fileOf(blob.Digest, ".data"), 1<<20)
	resp, body, err := s.target("").Get(s.ctx, "a/b/blobs/"+blob.Digest.String(), nil)
	if err == nil && resp.StatusCode == http.StatusOK && string(body) != string(blob.Bytes()) {
		t.Errorf("a complete answer of %d bytes that are not the blob", len(body))
	}
	s.eventually("it is right again", func() bool {
		_, err := s.target("").Pull(s.ctx, swarm.Pull{Repo: "a/b", Digest: blob.Digest, Want: blob.Bytes()})
		return err == nil
	})
}
