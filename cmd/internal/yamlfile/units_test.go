package yamlfile_test

import (
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/yamlfile"
)

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		text string
		want yamlfile.Size
	}{
		{"0", 0}, {"0B", 0}, {"17", 17}, {"1k", 1000}, {"1kB", 1000}, {"1K", 1000}, {"1KiB", 1024}, {"1Ki", 1024},
		{"1TB", 1e12}, {"1T", 1e12}, {"1TiB", 1 << 40}, {"512GiB", 512 << 30}, {"512 GiB", 512 << 30}, {"1.5GB", 1.5e9}, {"0.5Ki", 512}, {"2P", 2e15},
	} {
		got, err := yamlfile.ParseSize(c.text)
		if err != nil || got != c.want {
			t.Errorf("%q = %d, %v, want %d", c.text, got, err, c.want)
		}
		if again, err := yamlfile.ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%d is printed as %s, which is %d, %v", got, got, again, err)
		}
	}
	for _, text := range []string{"", "B", "-1", "1.TB", "1tb", "1EB", "1GIB", "1 000", "0x10", "1e9"} {
		if got, err := yamlfile.ParseSize(text); err == nil {
			t.Errorf("%q = %d, want an error", text, got)
		}
	}
	for size, want := range map[yamlfile.Size]string{1e12: "1TB", 512 << 30: "512GiB", 1500: "1500B", 64 << 20: "64MiB", 0: "0B"} {
		if got := size.String(); got != want {
			t.Errorf("%d is printed as %s, want %s", int64(size), got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]string{"60s": "1m", "1h": "1h", "90m": "1h30m", "0": "0s", "1m30s": "1m30s", "500ms": "500ms", "100m": "1h40m", "10h": "10h"} {
		d, err := yamlfile.ParseDuration(text)
		if err != nil || d.String() != want {
			t.Errorf("%q = %s, %v, want %s", text, d, err, want)
		}
	}
}
