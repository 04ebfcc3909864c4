package labels_test

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

func TestConverted(t *testing.T) {
	c := labels.Converted{
		Blob: digest.FromString("blob"), BlobSize: 4096, FSType: "erofs",
		SourceChain: digest.FromString("chain"), Converter: "1;erofs;lz4;4096;68719476736",
	}
	table := chunks.Ref{Root: digest.FromString("root"), Offset: 2048, Size: 1000}
	a := c.Annotations(labels.WithChunks(table))
	l, err := labels.Parse(a)
	if err != nil || l.Blob != c.Blob || l.BlobSize != c.BlobSize || l.FSType != c.FSType {
		t.Errorf("%+v, %v", l, err)
	}
	if got, err := labels.Chunks(a); err != nil || got != table {
		t.Errorf("%+v, %v", got, err)
	}
	if o, ok := labels.ParseOrigin(a); !ok || o.SourceChain != c.SourceChain || o.Converter != c.Converter {
		t.Errorf("%+v, %v", o, ok)
	}
	if a["containerd.io/snapshot/overlaybd/version"] != "0.1.0" {
		t.Errorf("annotations %v", a)
	}
	for k, v := range a {
		if !strings.HasPrefix(k, "containerd.io/snapshot/") || len(k)+len(v) > 4096 {
			t.Errorf("annotation %s does not get to the snapshotter", k)
		}
	}
	for _, bad := range []map[string]string{nil, {labels.SourceChain: "sha256:1", labels.Converter: "1"}, {labels.SourceChain: c.SourceChain.String()}} {
		if o, ok := labels.ParseOrigin(bad); ok {
			t.Errorf("%v is %+v", bad, o)
		}
	}
}
