package traces_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// TestDrop runs testdata/drop: each file has a manifest, a config, and what they
// become, separated by lines of dashes. CONFIG stands for the config's digest,
// SIZE for its size.
func TestDrop(t *testing.T) {
	files, err := filepath.Glob("testdata/drop/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(string(data), "\n----\n")
			if len(parts) < 3 {
				t.Fatalf("%d parts", len(parts))
			}
			manifest, config := fill(parts[0], parts[1]), []byte(parts[1])
			d, err := traces.Drop(manifest, config)
			if len(parts) == 3 {
				if want := strings.TrimSpace(parts[2]); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
				return
			}
			wantConfig := strings.TrimSuffix(parts[3], "\n")
			if err != nil || string(d.Config) != wantConfig {
				t.Errorf("config, %v:\n%s\nwant\n%s", err, d.Config, wantConfig)
			}
			if want := fill(parts[2], wantConfig); !bytes.Equal(d.Manifest, want) {
				t.Errorf("manifest\n%s\nwant\n%s", d.Manifest, want)
			}
			again, err := traces.Drop(d.Manifest, d.Config)
			if err != nil || len(again.Layers) != 0 || !bytes.Equal(again.Manifest, d.Manifest) || !bytes.Equal(again.Config, d.Config) {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

func fill(manifest, config string) []byte {
	s := strings.ReplaceAll(manifest, "CONFIG", digest.FromString(config).String())
	s = strings.ReplaceAll(s, "SIZE", fmt.Sprint(len(config)))
	for i := range 10 {
		s = strings.ReplaceAll(s, fmt.Sprintf("D%d", i), digest.FromString(fmt.Sprint(i)).String())
	}
	return []byte(s)
}

// The image with a trace that overlaybd's tools made becomes, byte by byte, the
// one that it was made of.
func TestDropGolden(t *testing.T) {
	golden := "../../../../shared/golden/images/"
	if _, err := os.Stat(golden); err != nil {
		t.Skip("no golden images")
	}
	with, without := open(t, golden+"busybox-obd-trace"), open(t, golden+"busybox-obd")
	n, err := with.Document(t.Context(), with.Root)
	if err != nil {
		t.Fatal(err)
	}
	config, err := with.Read(t.Context(), n.Manifest.Config)
	if err != nil {
		t.Fatal(err)
	}
	d, err := traces.Drop(n.Text, config)
	if err != nil || digest.FromBytes(d.Manifest) != without.Root.Digest || len(d.Layers) != 1 {
		t.Errorf("%s, %v", d.Manifest, err)
	}
}

func open(t *testing.T, arg string) *source.Content {
	t.Helper()
	c, err := source.OpenContent(t.Context(), arg, source.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Whatever manifest and config are, what comes out has no trace layer and fits
// together.
func FuzzDrop(f *testing.F) {
	files, _ := filepath.Glob("testdata/drop/*")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		parts := strings.Split(string(data), "\n----\n")
		f.Add(fill(parts[0], parts[1]), []byte(parts[1]))
	}
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		d, err := traces.Drop(manifest, config)
		if err != nil {
			return
		}
		var was, is ocispec.Manifest
		if json.Unmarshal(manifest, &was) != nil || json.Unmarshal(d.Manifest, &is) != nil {
			t.Fatalf("%s is no manifest", d.Manifest)
		}
		if len(d.Layers) == 0 {
			if !bytes.Equal(d.Manifest, manifest) || !bytes.Equal(d.Config, config) {
				t.Fatal("nothing was dropped, but something changed")
			}
			return
		}
		if len(traces.Layers(is.Layers)) > 0 || len(is.Layers)+len(d.Layers) != len(was.Layers) {
			t.Fatalf("%s of %s", d.Manifest, manifest)
		}
		if is.Config.Digest.Algorithm().FromBytes(d.Config) != is.Config.Digest || is.Config.Size != int64(len(d.Config)) {
			t.Fatalf("%s does not name its config", d.Manifest)
		}
		for _, l := range d.Layers {
			if l.Annotations[labels.Trace] != "yes" {
				t.Fatalf("%+v was dropped", l)
			}
		}
	})
}
