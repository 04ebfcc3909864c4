package record_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/record"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// FuzzWithTrace adds a trace to any documents: what becomes of them is an image
// with one more layer, which taken off gives the same texts again, but for a subject,
// and doing so again changes nothing but the trace.
func FuzzWithTrace(f *testing.F) {
	d := digest.FromString("layer")
	layer := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1,"annotations":{%q:%q}}`, ocispec.MediaTypeImageLayer, d, labels.BlobDigest, d)
	rootfs := fmt.Sprintf(`{"type":"layers","diff_ids":[%q]}`, d)
	for _, x := range [][2]string{
		{`{"layers":[` + layer + `],"config":{"digest":"` + d.String() + `","size":1}}`, `{"rootfs":` + rootfs + `}`},
		{
			`{"config": {"size":1, "digest":"` + d.String() + `", "data":"YQ=="}, "layers": [` + "\n " + layer + "\n]}",
			`{ "rootfs" : ` + rootfs + ` ,"created": "2020-01-01T00:00:00.000Z","history":[{"created_by":"Acceleration Layer"},{"x":1,"empty_layer":true}]}`,
		},
		{
			`{"subject":{},"layers":[` + layer + `],"config":{"digest":"` + d.String() + `","size":1},"artifactType":"x","y":[]}`,
			`{"history":[{"created_by":"x"}],"created":"x","rootfs":` + rootfs + `}`,
		},
		{`{"layers":[` + layer + `],"Layers":[],"LAYERS":null}`, `{"history":[],"RootFS":{},"rootfs":` + rootfs + `}`},
		{`{"layers":[]}`, `{}`},
		{`null`, `null`},
	} {
		f.Add([]byte(x[0]), []byte(x[1]))
	}
	top := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("trace"), Size: 9}
	top.Annotations = labels.TraceBlob{Blob: top.Digest, BlobSize: top.Size}.Annotations()
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		m, c, err := record.WithTrace(manifest, config, top)
		if err != nil {
			return
		}
		var is ocispec.Manifest
		var has struct {
			RootFS ocispec.RootFS `json:"rootfs"`
		}
		if err := errors.Join(json.Unmarshal(m, &is), json.Unmarshal(c, &has)); err != nil {
			t.Fatal(err)
		}
		n := len(is.Layers)
		if n < 2 || len(has.RootFS.DiffIDs) != n || is.Layers[n-1].Digest != top.Digest || has.RootFS.DiffIDs[n-1] != top.Digest {
			t.Errorf("%d layers, %d diff IDs: %s, %s", n, len(has.RootFS.DiffIDs), m, c)
		}
		if is.Config.Digest != digest.FromBytes(c) || is.Config.Size != int64(len(c)) || is.Subject != nil {
			t.Errorf("config %+v, subject %+v", is.Config, is.Subject)
		}
		before, err := traces.Drop(manifest, config)
		if err != nil {
			t.Fatal(err)
		}
		after, err := traces.Drop(m, c)
		if err != nil || string(after.Config) != string(before.Config) {
			t.Errorf("without the trace again: %s, %v; was %s", after.Config, err, before.Config)
		}
		m1, c1, err := record.WithTrace(after.Manifest, after.Config, top) // now the config's digest is the right one
		if err != nil {
			t.Fatal(err)
		}
		again, err := traces.Drop(m1, c1)
		if err != nil || string(again.Manifest) != string(after.Manifest) || string(again.Config) != string(after.Config) {
			t.Errorf("without the trace again: %s, %v; was %s", again.Manifest, err, after.Manifest)
		}
		m2, c2, err := record.WithTrace(m, c, top)
		if err != nil || string(m2) != string(m) || string(c2) != string(c) {
			t.Errorf("again: %s, %s, %v", m2, c2, err)
		}
	})
}
