package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
)

// TestChunkTables looks at a stack of layers of which two have a chunk table.
func TestChunkTables(t *testing.T) {
	testdata, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i, path := range chain3("zstd-64k.tar") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, []string{"L0", "L1", "L2"}[i]+".tar")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, _, _, err := backstore.AppendChunks(t.Context(), f, int64(len(data))); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	inspect := reprise(t, "inspect", "L0.tar", "L1.tar", "L2.tar")
	check := reprise(t, "check", "L0.tar", "L1.tar", "L2.tar")
	if err := os.Truncate("L2.tar", 4000); err != nil {
		t.Fatal(err)
	}
	if r := reprise(t, "check", "L2.tar"); r.code != exitFailed {
		t.Errorf("%+v", r)
	}
	t.Chdir(testdata)
	if inspect.code != exitOK || check.code != exitOK || strings.Contains(check.out, "not ok") {
		t.Errorf("%+v, %+v", inspect, check)
	}
	golden(t, "inspect-chunks.txt", stable(inspect.out))
	golden(t, "check-chunks.txt", check.out)
}
