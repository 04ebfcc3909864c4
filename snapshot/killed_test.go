package snapshot_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/snapshot"
)

// committing names the variable with the root for which the test binary serves as
// a process that commits, until it is killed.
const committing = "TEST_COMMITTING"

// keepCommitting prepares snapshots in turn, writes to them and commits them. It prints "written N" once what N holds is durable, and
// "committed N".
func keepCommitting(ctx context.Context, root string) error {
	files := newFileDevices(nil)
	s, err := snapshot.New(ctx, snapshot.Config{Root: root}, files)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		mounts, err := s.Prepare(ctx, fmt.Sprint("c-", n), "", writableLabels("dir"))
		if err != nil {
			return err
		}
		if err := files.write(ctx, filepath.Base(filepath.Dir(filepath.Dir(mounts[0].Source))), n%32, 7); err != nil {
			return err
		}
		fmt.Println("written", n)
		if err := s.Commit(ctx, fmt.Sprint("done-", n), fmt.Sprint("c-", n)); err != nil {
			return err
		}
		fmt.Println("committed", n)
	}
}

// TestCommitKilled kills a process that commits at random moments. What was written
// is in a writable snapshot or in a committed one, whole.
func TestCommitKilled(t *testing.T) {
	active, committed := 0, 0
	for round := range 60 {
		root := filepath.Join(t.TempDir(), "root")
		said := killCommitting(t, root, rand.IntN(12), time.Duration(rand.IntN(4000))*time.Microsecond)
		files := newFileDevices(t)
		s, err := snapshot.New(t.Context(), snapshot.Config{Root: root}, files)
		if err != nil {
			t.Fatal(err)
		}
		for n, word := range said {
			is, err := checkKilled(t.Context(), s, files, n, word)
			if err != nil {
				t.Errorf("round %d, snapshot %d, which was %s: %v", round, n, word, err)
			}
			if is == snapshots.KindActive {
				active++
			} else {
				committed++
			}
		}
		if err := errors.Join(clearAll(t.Context(), s), s.Cleanup(t.Context()), s.Close(), files.reboot()); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, root)
	}
	t.Logf("%d writable snapshots, %d committed", active, committed)
}

// killCommitting runs keepCommitting and kills it a while after it has said so many
// lines. It returns the last word on each snapshot.
func killCommitting(t *testing.T, root string, lines int, while time.Duration) map[int]string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), committing+"="+root)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := map[int]string{}
	r := bufio.NewScanner(out)
	for i := 0; r.Scan(); i++ {
		var word string
		var n int
		if _, err := fmt.Sscan(r.Text(), &word, &n); err != nil {
			t.Errorf("%q: %v", r.Text(), err)
		}
		said[n] = word
		if i == lines {
			time.Sleep(while)
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("it ended by itself: %v", err)
	}
	return said
}

// checkKilled checks snapshot n after the process that committed it was killed, and
// returns what kind it is.
func checkKilled(ctx context.Context, s *snapshot.Snapshotter, files *fileDevices, n int, word string) (snapshots.Kind, error) {
	key, name := fmt.Sprint("c-", n), fmt.Sprint("done-", n)
	mounts, err := s.Mounts(ctx, key)
	if errdefs.IsNotFound(err) {
		return snapshots.KindCommitted, checkLayer(ctx, s, name, n%32, 7)
	}
	if err == nil && word == "committed" {
		err = errors.New("it is not committed")
	}
	if err != nil {
		return snapshots.KindActive, err
	}
	u := files.upper(filepath.Base(filepath.Dir(filepath.Dir(mounts[0].Source))))
	if err := checkBlocks(ctx, u, n%32, 7); err != nil {
		return snapshots.KindActive, err
	}
	if err := s.Commit(ctx, name, key); err != nil {
		return snapshots.KindActive, err
	}
	return snapshots.KindActive, checkLayer(ctx, s, name, n%32, 7)
}
