package trees_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/load/trees"
)

// TestTrees unpacks trees, and damages one.
func TestTrees(t *testing.T) {
	l, err := trees.New(t.TempDir()+"/archive", 200, 1)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, root, 2) }()
	for l.Done() < 5 {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/tree-0", "/tree-1"} {
		if err := l.Compare(root + dir); err != nil {
			t.Error(err)
		}
	}
	p, err := os.ReadFile(root + "/tree-1/3/10/file-10")
	if err != nil || len(p) == 0 {
		t.Fatal(len(p), err)
	}
	p[len(p)/2] ^= 1
	if err := os.WriteFile(root+"/tree-1/3/10/file-10", p, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Compare(root + "/tree-1"); err == nil {
		t.Error("a bit that is another is not found")
	} else {
		t.Log(err)
	}
}
