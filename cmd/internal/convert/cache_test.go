package convert_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/source"
)

// A cache that is damaged, or says what is not true, costs a conversion.
func TestCache(t *testing.T) {
	from, dir := single(t, three()...), t.TempDir()+"/a/b"
	cfg := config(t)
	cfg.Cache = convert.OpenCache(dir)
	to := t.TempDir()
	want := mustRun(t, cfg, from, to+":1")
	wantStored(t, want, "uploaded", "uploaded", "uploaded")
	wantStored(t, mustRun(t, cfg, from, to+":2"), "present again", "present again", "present again")
	// Elsewhere, nothing of it is there.
	wantStored(t, mustRun(t, cfg, from, t.TempDir()), "uploaded", "uploaded", "uploaded")

	files, err := filepath.Glob(dir + "/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("%q, %v", files, err)
	}
	for name, change := range map[string]func(string) string{
		"empty":       func(string) string { return "" },
		"no JSON":     func(s string) string { return s[1:] },
		"another key": func(s string) string { return strings.Replace(s, "erofs", "ext4", 1) },
		"no digest":   func(s string) string { return strings.Replace(s, `"digest":"sha256:`, `"digest":"md5:`, 1) },
	} {
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err == nil {
				err = os.WriteFile(f, []byte(change(string(text))), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r := mustRun(t, cfg, from, to+":3")
		if _, converted, _ := r.Totals(); converted != 3 || r.Digest != want.Digest {
			t.Errorf("%s: %d layers converted, %s", name, converted, r.Digest)
		}
	}
}

// The files of the cache are read by later versions.
func TestCacheFormat(t *testing.T) {
	cfg, dir := config(t), t.TempDir()
	cfg.Cache = convert.OpenCache(dir)
	l := mustRun(t, cfg, single(t, three()[0]), t.TempDir()).Images[0].Layers[0]
	names := entries(t, dir)
	if len(names) != 1 {
		t.Fatalf("%q", names)
	}
	text, err := os.ReadFile(filepath.Join(dir, names[0]))
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^{"key":{"chain":"` + l.Chain.String() + `","converter":"1;erofs;zstd;4096;1073741824"},"digest":"` + l.Digest.String() +
		`","size":` + fmt.Sprint(l.Size) + `,"chunks":{"root":"sha256:[0-9a-f]{64}","offset":[0-9]+,"size":[0-9]+}}$`)
	if !form.Match(text) {
		t.Errorf("%s is not of the form %s", text, form)
	}
}

// A cache that can't be written does not end a conversion that works.
func TestCacheUnwritable(t *testing.T) {
	from, file := single(t, three()...), t.TempDir()+"/file"
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := config(t)
	cfg.Cache = convert.OpenCache(file + "/cache") // also root can't make that
	var notes []string
	cfg.Note = func(s string) { notes = append(notes, s) }
	to := t.TempDir()
	wantStored(t, mustRun(t, cfg, from, to+":1"), "uploaded", "uploaded", "uploaded")
	opens(t, to+":1", 3)
	if len(notes) != 1 || !strings.Contains(notes[0], "not remembered") || !strings.Contains(notes[0], file) {
		t.Errorf("notes %q, want one about %s", notes, file)
	}
	notes = nil
	cfg.Known = []*source.Content{content(t, to+":1", source.Config{})}
	wantStored(t, mustRun(t, cfg, from, t.TempDir()), "copied again", "copied again", "copied again")
	if len(notes) != 1 {
		t.Errorf("notes %q, want one", notes)
	}
}

// An image that is known but lost its blobs is no help, and no harm.
func TestKnownIsGone(t *testing.T) {
	from, known := single(t, three()...), t.TempDir()
	want := mustRun(t, config(t), from, known+":1")
	for _, l := range want.Images[0].Layers[1:] {
		if err := os.Remove(filepath.Join(known, "blobs/sha256", l.Digest.Encoded())); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config(t)
	var notes []string
	cfg.Note = func(s string) { notes = append(notes, s) }
	cfg.Known = []*source.Content{content(t, known+":1", source.Config{}), content(t, from, source.Config{})}
	r := mustRun(t, cfg, from, t.TempDir())
	wantStored(t, r, "copied again", "uploaded", "uploaded")
	if r.Digest != want.Digest || len(notes) != 1 || !strings.Contains(notes[0], "can not be reused") {
		t.Errorf("%s, want %s; %q", r.Digest, want.Digest, notes)
	}
}
