package labels_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

const (
	chain = "sha256:a3b06b6fd03590c7bbdda90bc22309640575efda7768c0756a2e477cb0d363fd"
	blob  = "sha256:890d48003f0a7446a77e1078626d205b93fd49f09e6f246d44ccda240fd6de41"
	ref   = "registry.example:5000/team/app:1.2"
)

// layer is what the unpacker and the annotations of an image give.
func layer(more ...string) map[string]string {
	m := map[string]string{
		labels.Target:     chain,
		labels.DiffID:     blob,
		labels.BlobDigest: blob,
		labels.BlobSize:   "37376",
		labels.ImageRef:   ref,
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func without(m map[string]string, keys ...string) map[string]string {
	m = maps.Clone(m)
	for _, k := range keys {
		delete(m, k)
	}
	return m
}

func TestKeysAreContainerds(t *testing.T) {
	if labels.Target != snapshots.LabelSnapshotRef || labels.DiffID != snapshots.LabelSnapshotDiffID {
		t.Errorf("containerd calls them %s and %s", snapshots.LabelSnapshotRef, snapshots.LabelSnapshotDiffID)
	}
	all := layer(labels.CRIImageRef, ref, labels.FSType, "ext4", labels.Trace, "yes", labels.Remote, labels.RemoteValue,
		labels.Download, "download", labels.Writable, "dir", labels.RecordTrace, "yes",
		labels.TurboDigest, blob, labels.TurboDigestOld, blob, labels.ParentChainID, chain)
	for k := range all {
		if _, ok := snapshots.FilterInheritedLabels(all)[k]; !ok {
			t.Errorf("containerd does not pass on label %s", k)
		}
	}
}

func TestParse(t *testing.T) {
	got, err := labels.Parse(layer(labels.FSType, "ext4;noatime,suid;-O x", labels.ParentChainID, chain, "unknown", "\x00"))
	if err != nil {
		t.Fatal(err)
	}
	want := labels.Labels{Target: chain, Image: ref, Blob: blob, BlobSize: 37376, DiffID: blob, ParentChainID: chain, FSType: "ext4", FS: "ext4;noatime,suid;-O x"}
	if got != want {
		t.Errorf("Parse = %+v\nwant    %+v", got, want)
	}
	if got, err := labels.Parse(nil); err != nil || got != (labels.Labels{}) {
		t.Errorf("Parse(nil) = %+v, %v", got, err)
	}
}

// TestImageReference: an annotation can set either key, but CRI overwrites its own.
func TestImageReference(t *testing.T) {
	got, err := labels.Parse(layer(labels.CRIImageRef, "docker.io/library/redis:7"))
	if err != nil || got.Image != "docker.io/library/redis:7" {
		t.Errorf("Image = %q, %v", got.Image, err)
	}
}

func TestClass(t *testing.T) {
	for name, c := range map[string]struct {
		labels map[string]string
		want   labels.Class
	}{
		"nothing":              {nil, labels.Root},
		"container":            {map[string]string{"a": "b", labels.ImageRef: ref}, labels.Root},
		"annotations, no ref":  {without(layer(), labels.Target), labels.Root},
		"rpull, nerdctl":       {layer(), labels.Lazy},
		"CRI":                  {without(layer(labels.CRIImageRef, ref), labels.ImageRef), labels.Lazy},
		"fs type":              {layer(labels.FSType, "erofs"), labels.Lazy},
		"plain pull":           {without(layer(), labels.ImageRef), labels.DownloadLayer},
		"rpull download":       {layer(labels.Download, "download"), labels.DownloadLayer},
		"other download value": {layer(labels.Download, "no"), labels.Lazy},
		"size missing":         {without(layer(), labels.BlobSize), labels.DownloadLayer},
		"trace":                {layer(labels.Trace, "yes"), labels.TraceLayer},
		"trace, plain pull":    {without(layer(labels.Trace, "yes"), labels.ImageRef), labels.TraceLayer},
		"trace=no":             {layer(labels.Trace, "no"), labels.Lazy},
		"ordinary layer":       {without(layer(), labels.BlobDigest, labels.BlobSize), labels.Unpack},
		"size only":            {without(layer(), labels.BlobDigest), labels.Unpack},
		"turbo":                {layer(labels.TurboDigest, blob), labels.TurboLayer},
		"fastoci":              {layer(labels.TurboDigestOld, blob, labels.Trace, "yes"), labels.TurboLayer},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := labels.Parse(c.labels)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.Class(); got != c.want {
				t.Errorf("Class = %v, want %v", got, c.want)
			}
		})
	}
}

func TestWritable(t *testing.T) {
	for value, want := range map[string]labels.WritableMode{
		"": labels.WritableUnset, "overlayfs": labels.WritableOverlay, "dir": labels.WritableDir, "dev": labels.WritableDevice,
	} {
		if l, err := labels.Parse(map[string]string{labels.Writable: value}); err != nil || l.Writable != want {
			t.Errorf("Writable of %q = %v, %v; want %v", value, l.Writable, err, want)
		}
	}
}

func TestVirtualSize(t *testing.T) {
	if l, err := labels.Parse(map[string]string{labels.VirtualSize: "64"}); err != nil || l.VirtualSize != 64<<30 {
		t.Errorf("64 GiB are %d bytes, %v", l.VirtualSize, err)
	}
}

func TestBadValues(t *testing.T) {
	for _, c := range []struct{ key, value string }{
		{labels.VirtualSize, ""},
		{labels.VirtualSize, "0"},
		{labels.VirtualSize, "-1"},
		{labels.VirtualSize, "64GB"},
		{labels.VirtualSize, "536870913"},
		{labels.BlobDigest, ""},
		{labels.BlobDigest, "sha256:abc"},
		{labels.BlobDigest, "md5:d41d8cd98f00b204e9800998ecf8427e"},
		{labels.BlobDigest, "sha256:../../../../etc/passwd"},
		{labels.BlobDigest, strings.ToUpper(blob)},
		{labels.DiffID, "x"},
		{labels.ParentChainID, "sha256:"},
		{labels.BlobSize, ""},
		{labels.BlobSize, "0"},
		{labels.BlobSize, "-1"},
		{labels.BlobSize, "1.5"},
		{labels.BlobSize, "0x10"},
		{labels.BlobSize, "17592186044417"},
		{labels.BlobSize, "99999999999999999999999999"},
		{labels.FSType, "ext4 -o suid"},
		{labels.FSType, "../ext4"},
		{labels.FSType, strings.Repeat("e", 17)},
		{labels.ImageRef, "Not A Reference"},
		{labels.ImageRef, "host/../x"},
		{labels.CRIImageRef, "host/repo:tag with space"},
	} {
		_, err := labels.Parse(layer(c.key, c.value))
		if err == nil {
			t.Errorf("%s = %q is taken", c.key, c.value)
			continue
		}
		if !strings.Contains(err.Error(), c.key) || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s = %q: %v does not name the label or is of another class", c.key, c.value, err)
		}
	}
	if _, err := labels.Parse(layer(labels.BlobSize, "17592186044416")); err != nil {
		t.Errorf("the largest size is refused: %v", err)
	}
}

func TestWithRemote(t *testing.T) {
	in := layer()
	out := labels.WithRemote(in)
	if _, ok := in[labels.Remote]; ok || len(out) != len(in)+1 {
		t.Errorf("WithRemote changed its argument or lost labels: %v -> %v", in, out)
	}
	if l, err := labels.Parse(labels.WithRemote(nil)); err != nil || !l.Remote {
		t.Errorf("not marked: %+v, %v", l, err)
	}
}

// FuzzParse: nothing panics, and what is accepted is within the bounds that
// the rest of the program relies on.
func FuzzParse(f *testing.F) {
	f.Add(blob, "37376", "ext4;a;b", ref, "yes")
	f.Add("sha256:", "-0", ";", "a@b", "download")
	f.Add("sha512:"+strings.Repeat("0", 128), "17592186044416", "", "docker.io/x@"+blob, "dir")
	f.Fuzz(func(t *testing.T, dgst, size, fsType, image, word string) {
		m := map[string]string{
			labels.Target: image, labels.BlobDigest: dgst, labels.BlobSize: size, labels.FSType: fsType,
			labels.ImageRef: image, labels.Trace: word, labels.Download: word, labels.Writable: word,
		}
		l, err := labels.Parse(m)
		if err != nil {
			if l != (labels.Labels{}) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("%+v with error %v", l, err)
			}
			return
		}
		if l.BlobSize <= 0 || l.BlobSize > labels.MaxBlobSize || l.Blob.Validate() != nil {
			t.Errorf("accepted blob %q of %d bytes", l.Blob, l.BlobSize)
		}
		if strings.ContainsAny(l.FSType, ";,/ \x00") || strings.ContainsAny(l.Image, " \n\x00") {
			t.Errorf("accepted fs type %q, image %q", l.FSType, l.Image)
		}
		if l.Class() == labels.Lazy && l.Image == "" {
			t.Errorf("lazy without an image reference: %+v", l)
		}
	})
}
