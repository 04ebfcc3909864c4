package crash_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/integration/blockd"
	"github.com/reprise-containers/reprise/integration/load/files"
	"github.com/reprise-containers/reprise/integration/load/sectors"
	"github.com/reprise-containers/reprise/integration/load/trees"
)

const (
	fsSize    = 512 << 20
	innerSize = 16 << 20
)

// mounted is a device with a file system and what loads it: files and their names,
// trees, and a file that is written like a disk.
type mounted struct {
	id    string
	files *files.Load
	trees *trees.Load
	inner *sectors.Load

	disk          *sectors.Opened // inner's file
	cancels, ends []func()
}

func newMounted(t testing.TB, dir, id, fsType string, sparse bool, seed uint64) (*mounted, blockd.Device) {
	t.Helper()
	m := &mounted{id: id, files: files.New(4, seed)}
	var err error
	m.trees, err = trees.New(filepath.Join(dir, id+".tar"), 300, seed)
	check(t, err)
	m.inner, err = sectors.New(innerSize, 4, seed)
	check(t, err)
	return m, blockd.Device{ID: id, Sparse: sparse, Size: fsSize, FSType: fsType}
}

func (m *mounted) begin(t testing.TB, s *site) {
	t.Helper()
	root := s.wait(t).Paths[m.id]
	inner := filepath.Join(root, "inner")
	if _, err := os.Stat(inner); err != nil {
		check(t, os.WriteFile(inner, nil, 0o600))
		check(t, os.Truncate(inner, innerSize))
	}
	m.disk = open(t, inner)
	for _, load := range []func(context.Context) error{
		func(ctx context.Context) error { return m.files.Run(ctx, root) },
		func(ctx context.Context) error { return m.trees.Run(ctx, root, 2) },
		func(ctx context.Context) error { return m.inner.Run(ctx, m.disk) },
	} {
		cancel, end := background(t, load)
		m.cancels, m.ends = append(m.cancels, cancel), append(m.ends, end)
	}
}

func (m *mounted) end(t testing.TB) {
	t.Helper()
	for _, cancel := range m.cancels {
		cancel()
	}
	for _, end := range m.ends {
		end()
	}
	m.cancels, m.ends = nil, nil
	if m.disk != nil {
		check(t, m.disk.Close())
		m.disk = nil
	}
}

func (m *mounted) busy() map[string]int {
	n := map[string]int{"files": m.files.Busy()}
	for k, c := range m.inner.Busy() {
		n["file "+sectors.Kind(k).String()] += c
	}
	return n
}

// verify compares the mounted file system with all that was acknowledged.
func (m *mounted) verify(t testing.TB, s *site) {
	t.Helper()
	root := s.wait(t).Paths[m.id]
	if _, err := m.files.Check(root, m.files.Acknowledged()); err != nil {
		t.Fatalf("%s: %v", m.id, err)
	}
	for _, tree := range []string{"tree-0", "tree-1"} {
		if err := m.trees.Compare(filepath.Join(root, tree)); err != nil {
			t.Fatalf("%s: %v", m.id, err)
		}
	}
	d := open(t, filepath.Join(root, "inner"))
	defer d.Close()
	if _, err := m.inner.Check(d, m.inner.Acknowledged()); err != nil {
		t.Fatalf("%s, inner: %v", m.id, err)
	}
}

// TestKillFiles kills the daemon under load on mounted file systems, which go on
// with its successor.
func TestKillFiles(t *testing.T) {
	dir := t.TempDir()
	a, appended := newMounted(t, dir, "ext4-append", "ext4", false, 1)
	b, sparse := newMounted(t, dir, "ext4-sparse", "ext4", true, 2)
	all := []*mounted{a, b}
	s := newSite(t, appended, sparse)
	s.start(t)
	for _, m := range all {
		m.begin(t, s)
	}
	for i := range kills(t) {
		if rand.IntN(4) > 0 {
			s.wait(t)
			for _, m := range all {
				s.ask(t, m.id)
			}
		}
		pause(0, 300)
		s.kill(t, func() map[string]int {
			n := a.busy()
			for k, c := range b.busy() {
				n[k] += c
			}
			return n
		})
		pause(0, 20)
		s.start(t)
		if i%8 == 7 {
			s.wait(t)
			for _, m := range all {
				m.end(t)
				m.verify(t, s)
				m.begin(t, s)
			}
		}
	}
	s.wait(t)
	for _, m := range all {
		m.end(t)
		m.verify(t, s)
		t.Logf("%s: %d operations on files, %d trees, writes, discards, zeroes, flushes in a file: %v",
			m.id, m.files.Done(), m.trees.Done(), m.inner.Done())
	}
	t.Logf("%d kills with %d requests in flight, %v", s.killed, s.inFlight, s.doing)
	if s.inFlight == 0 {
		t.Error("no request was in flight at any kill")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	check(t, s.daemon.Stop(ctx))
	s.holder = 0
	for _, m := range all {
		check(t, s.cfg.Check(t.Context(), m.id))
	}
	// From the files alone.
	s.start(t)
	for _, m := range all {
		m.verify(t, s)
	}
	check(t, s.daemon.Stop(ctx))
	s.holder = 0
}

// ask asks the daemon for a commit of a mounted device, or a restacking, whose
// end nobody waits for.
func (s *site) ask(_ testing.TB, id string) {
	d := s.daemon
	switch rand.IntN(4) {
	case 0:
		go d.Restack(context.Background(), id) //nolint:errcheck // it may be killed
	case 1:
		go d.Commit(context.Background(), id, filepath.Join(s.cfg.Dir, id+".commit")) //nolint:errcheck // it may be killed
	}
}
