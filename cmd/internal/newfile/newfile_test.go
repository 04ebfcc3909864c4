package newfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/newfile"
)

func write(text string) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.WriteString(text)
		return err
	}
}

// TestWrite: a file appears whole, or not at all, and nothing is replaced that
// was not meant.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	holds := func(want string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("file has %q, %v; want %q", got, err, want)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Errorf("left %v, %v", all, err)
		}
	}
	if err := newfile.Write(path, false, write("one")); err != nil {
		t.Fatal(err)
	}
	holds("one")
	if err := newfile.Write(path, false, write("two")); err == nil {
		t.Error("replaced a file")
	}
	holds("one")
	boom := errors.New("boom")
	if err := newfile.Write(path, true, func(*os.File) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("error is %v", err)
	}
	holds("one")
	if err := newfile.Write(path, true, write("three")); err != nil {
		t.Fatal(err)
	}
	holds("three")
	// One that appears meanwhile is somebody else's.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	err := newfile.Write(path, false, func(f *os.File) error {
		return errors.Join(os.WriteFile(path, []byte("theirs"), 0o600), write("ours")(f))
	})
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("error is %v", err)
	}
	holds("theirs")
	if err := newfile.Write("/dev/null", true, write("")); err == nil {
		t.Error("replaced a device")
	}
	if err := newfile.Write(filepath.Join(dir, "none", "file"), false, write("")); err == nil {
		t.Error("made a directory")
	}
}
