package recordings_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cmd/internal/recordings"
	"github.com/reprise-containers/reprise/snapshot"
)

func TestRefused(t *testing.T) {
	n := newNode(t, nil)
	sub := func(name string, mode fs.FileMode) string {
		dir := filepath.Join(n.dir, name)
		n.must(os.Mkdir(dir, 0o700))
		n.must(os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
		n.must(os.Chmod(dir, mode))
		return filepath.Join(dir, "f")
	}
	full := n.file("full")
	n.must(os.WriteFile(full, []byte("x"), 0o600))
	link := filepath.Join(n.dir, "link")
	n.must(os.Symlink(n.file("target"), link))
	hard := filepath.Join(n.dir, "hard")
	n.must(os.Link(n.file("other"), hard))
	pipe := filepath.Join(n.dir, "pipe")
	n.must(unix.Mkfifo(pipe, 0o600))
	outside := filepath.Join(t.TempDir(), "f")
	n.must(os.WriteFile(outside, nil, 0o600))
	linked := filepath.Join(n.dir, "linked")
	n.must(os.Symlink(filepath.Dir(outside), linked))
	foreign, foreignDir := n.file("foreign"), sub("foreign-dir", 0o755)
	if os.Geteuid() == 0 {
		n.must(os.Chown(foreign, 1234, 1234))
		n.must(os.Chown(filepath.Dir(foreignDir), 1234, 1234))
	} else {
		foreign, foreignDir = full, full
	}
	for name, path := range map[string]string{
		"missing":           filepath.Join(n.dir, "missing"),
		"missing directory": filepath.Join(n.dir, "missing", "f"),
		"not empty":         full,
		"symbolic link":     link,
		"hard link":         hard,
		"pipe":              pipe,
		"directory":         n.dir,
		"of another user":   foreign,
		"another's dir":     foreignDir,
		"writable by all":   sub("open", 0o777),
		"writable by group": sub("group", 0o775),
		"device":            "/dev/null",
		"outside":           outside,
		"linked directory":  filepath.Join(linked, "f"),
		"only a prefix":     n.dir + "x/f",
	} {
		t.Run(name, func(t *testing.T) {
			err := n.Record(t.Context(), "1", n.img, "/mnt", snapshot.RecordOptions{Asked: true, File: path})
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", path, err)
			}
			if len(n.devices) != 0 || exists(path+".lock") {
				t.Error("it was begun")
			}
		})
	}
	if data, err := os.ReadFile(full); err != nil || string(data) != "x" {
		t.Errorf("the file has %q, %v", data, err)
	}
	err := n.Record(t.Context(), "1", n.img, "/mnt", snapshot.RecordOptions{Asked: true, File: outside})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "trace.record_paths") {
		t.Errorf("outside of what is allowed: %v", err)
	}
	// A sticky directory, as /tmp, is as good as one's own.
	n.start("1", sub("sticky", fs.ModeSticky|0o777))
	n.Ended("1")
}

// TestPaths: the directories that may be written below are the administrator's,
// wherever they are, and nobody's who was there first.
func TestPaths(t *testing.T) {
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	real := filepath.Join(root, "real", "deep")
	must(os.MkdirAll(real, 0o700))
	own, foreign := filepath.Join(root, "own"), filepath.Join(root, "foreign")
	must(os.Symlink(filepath.Dir(real), own))
	must(os.Symlink(filepath.Dir(real), foreign))
	taken := filepath.Join(root, "taken")
	must(os.Mkdir(taken, 0o700))
	if os.Geteuid() == 0 {
		must(os.Lchown(foreign, 1234, 1234))
		must(os.Chown(taken, 1234, 1234))
	}
	must(os.WriteFile(filepath.Join(taken, "f"), nil, 0o600))
	must(os.WriteFile(filepath.Join(real, "f"), nil, 0o600))
	for _, c := range []struct {
		paths []string
		file  string
		ok    bool
	}{
		{[]string{own}, filepath.Join(own, "deep", "f"), true},
		{[]string{own + "/"}, filepath.Join(own, "deep", "f"), true},
		{[]string{"/x", filepath.Join(root, "real")}, filepath.Join(real, "f"), true},
		{[]string{root}, filepath.Join(own, "deep", "f"), false}, // a link on the way
		{[]string{foreign}, filepath.Join(foreign, "deep", "f"), os.Geteuid() != 0},
		{[]string{taken}, filepath.Join(taken, "f"), os.Geteuid() != 0},
		{nil, filepath.Join(real, "f"), false},
	} {
		n := newNode(t, func(cfg *recordings.Config) { cfg.Paths = c.paths })
		err := n.Record(t.Context(), "1", n.img, "/mnt", snapshot.RecordOptions{Asked: true, File: c.file})
		if c.ok != (err == nil) {
			t.Errorf("%s below %q: %v", c.file, c.paths, err)
		}
		n.stop()
	}
}
