package accesslog_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/accesslog"
)

// Of a file that is refused nothing is changed; of another one, what is before the
// end that was found.
func FuzzOpenTrace(f *testing.F) {
	f.Add([]byte("[\n{}\n]\n"))
	f.Add([]byte("[\n{},\n{\"a\":1"))
	f.Add([]byte("[\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := accesslog.Open(accesslog.Config{Path: path, Trace: true}, nil)
		if err == nil {
			l.Observe(blob)
			l.Close()
		}
		after, _ := os.ReadFile(path)
		if err != nil && !bytes.Equal(after, content) {
			t.Errorf("%q was refused (%v) and became %q", content, err, after)
		}
		if err == nil && (!bytes.HasPrefix(after, []byte("[\n")) || !bytes.HasSuffix(after, []byte("}\n]\n"))) {
			t.Errorf("%q became %q", content, after)
		}
	})
}
