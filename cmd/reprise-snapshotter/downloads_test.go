package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/download"
)

// Bytes that are not those of the digest are an error, a full disk is not one.
func TestDownloadFailuresAreLogged(t *testing.T) {
	layer := backstore.Layer{Digest: digest.FromString("layer")}
	for _, c := range []struct {
		err   error
		level string
	}{
		{fmt.Errorf("downloading: %w: twice", download.ErrMismatch), "level=error"},
		{fmt.Errorf("downloading: %w", download.ErrDiskFull), "level=warning"},
	} {
		text := logged(t)
		downloads{t.Context()}.DownloadFailed("registry.example/app:1", layer, c.err)
		for _, want := range []string{c.level, "registry.example/app:1", layer.Digest.String(), c.err.Error()} {
			if !strings.Contains(text(), want) {
				t.Errorf("%v: %q is not in %s", c.err, want, text())
			}
		}
	}
}
