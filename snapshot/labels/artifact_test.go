package labels_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Images that others made carry these.
func TestArtifactTypes(t *testing.T) {
	if labels.TablesArtifact != "application/vnd.reprise.chunks.v1" || labels.ConvertedArtifact != "application/vnd.containerd.overlaybd.native.v1+json" {
		t.Errorf("types %s, %s", labels.TablesArtifact, labels.ConvertedArtifact)
	}
}

func TestTable(t *testing.T) {
	want := labels.DetachedTable{Blob: blob, BlobSize: 37376, Root: digest.FromString("root")}
	good := labels.WithTable(want)
	good["other"] = "thing"
	if got, err := labels.Table(good); err != nil || got != want {
		t.Errorf("%+v became %+v, %v", want, got, err)
	}
	for _, c := range []struct{ key, value string }{
		{labels.BlobDigest, ""},
		{labels.BlobSize, ""},
		{labels.ChunksRoot, ""},
		{labels.BlobDigest, "sha256:beef"},
		{labels.BlobSize, "0"},
		{labels.BlobSize, "many"},
		{labels.ChunksRoot, "beef"},
	} {
		bad := maps.Clone(good)
		bad[c.key] = c.value
		if c.value == "" {
			delete(bad, c.key)
		}
		got, err := labels.Table(bad)
		if got != (labels.DetachedTable{}) || !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.key) {
			t.Errorf("%s=%q: %+v, %v", c.key, c.value, got, err)
		}
	}
}
