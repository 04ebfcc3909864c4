package labels_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

func TestChunks(t *testing.T) {
	for _, ref := range []chunks.Ref{{}, {Root: digest.FromString("root"), Offset: 2048, Size: 1000}} {
		a := labels.WithChunks(ref)
		a["other"] = "thing"
		if got, err := labels.Chunks(a); err != nil || got != ref {
			t.Errorf("%+v became %+v, %v", ref, got, err)
		}
	}
	// containerd drops what is longer.
	for k, v := range labels.WithChunks(chunks.Ref{Root: digest.FromString("root"), Offset: 1 << 43, Size: 1 << 40}) {
		if !strings.HasPrefix(k, "containerd.io/snapshot/") || len(k)+len(v) > 4096 {
			t.Errorf("annotation %s does not get to the snapshotter", k)
		}
	}
}

func TestChunksErrors(t *testing.T) {
	good := labels.WithChunks(chunks.Ref{Root: digest.FromString("root"), Offset: 2048, Size: 1000})
	for _, c := range []struct{ key, value, want string }{
		{labels.ChunksRoot, "", labels.ChunksRoot},
		{labels.ChunksOffset, "", labels.ChunksOffset},
		{labels.ChunksSize, "", labels.ChunksSize},
		{labels.ChunksRoot, "sha256:beef", labels.ChunksRoot},
		{labels.ChunksRoot, "sha512:" + strings.Repeat("0", 128), labels.ChunksRoot},
		{labels.ChunksOffset, "0", labels.ChunksOffset},
		{labels.ChunksOffset, "-512", labels.ChunksOffset},
		{labels.ChunksOffset, "2049", "multiple of 512"},
		{labels.ChunksSize, "12", "shorter than its header"},
		{labels.ChunksSize, "99999999999999999999", labels.ChunksSize},
	} {
		a := maps.Clone(good)
		a[c.key] = c.value
		if c.value == "" {
			delete(a, c.key)
		}
		ref, err := labels.Chunks(a)
		if !ref.IsZero() || !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%q: %+v, %v", c.key, c.value, ref, err)
		}
	}
}
