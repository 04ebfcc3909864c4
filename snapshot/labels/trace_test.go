package labels_test

import (
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

var plan = tracelayer.Member{Offset: 2048, Size: 1000, Digest: digest.FromString("plan")}

func TestPlan(t *testing.T) {
	for _, m := range []tracelayer.Member{{}, plan} {
		a := labels.WithPlan(m)
		a["other"] = "thing"
		if got, err := labels.Plan(a); err != nil || got != m {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
	}
	// The last byte of the blob may be the plan's.
	a := labels.WithPlan(plan)
	a[labels.BlobSize] = "3048"
	if got, err := labels.Plan(a); err != nil || got != plan {
		t.Errorf("a plan that ends with its blob: %+v, %v", got, err)
	}
}

func TestPlanErrors(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{labels.PlanOffset, "", labels.PlanOffset},
		{labels.PlanSize, "", labels.PlanSize},
		{labels.PlanDigest, "", labels.PlanDigest},
		{labels.PlanDigest, "sha256:beef", labels.PlanDigest},
		{labels.PlanDigest, "sha512:" + strings.Repeat("0", 128), labels.PlanDigest},
		{labels.PlanOffset, "0", labels.PlanOffset},
		{labels.PlanOffset, "-512", labels.PlanOffset},
		{labels.PlanOffset, "2049", "multiple of 512"},
		{labels.PlanOffset, "17592186044416", "not within"},
		{labels.PlanSize, "17592186044416", "more than"},
		{labels.PlanSize, "99999999999999999999", labels.PlanSize},
		{labels.BlobSize, "3047", "not within a blob of 3047"},
		{labels.BlobSize, "2048", "not within"},
	} {
		a := labels.WithPlan(plan)
		a[labels.BlobSize] = "37376"
		a[c.key] = c.value
		if c.value == "" {
			delete(a, c.key)
		}
		m, err := labels.Plan(a)
		if m != (tracelayer.Member{}) || !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%q: %+v, %v", c.key, c.value, m, err)
		}
		// containerd gets the layer then, as if it had no plan.
		a[labels.Trace], a[labels.Target], a[labels.ImageRef] = "yes", chain, ref
		a[labels.BlobDigest] = blob
		if l, err := labels.Parse(a); err != nil || l.Class() != labels.TraceLayer {
			t.Errorf("%s=%q: %v, %v", c.key, c.value, l.Class(), err)
		}
	}
}

func TestTraceLayer(t *testing.T) {
	want := labels.TraceBlob{Blob: blob, BlobSize: 37376, FSType: "ext4;ro", Plan: plan}
	a := want.Annotations()
	for k, v := range a {
		if !strings.HasPrefix(k, "containerd.io/snapshot/") || len(k)+len(v) > 4096 {
			t.Errorf("annotation %s does not get to the snapshotter", k)
		}
	}
	if !labels.IsTrace(a) || labels.IsTrace(layer()) {
		t.Errorf("IsTrace(%v) is wrong, or of a layer without it", a)
	}
	l, err := labels.Parse(a)
	if err != nil || !l.Trace || l.Plan != plan || l.Blob != blob || l.BlobSize != 37376 || l.FSType != "ext4" {
		t.Errorf("Parse = %+v, %v", l, err)
	}
	with := func(more ...string) map[string]string {
		m := layer(more...)
		maps.Copy(m, a)
		return m
	}
	for name, c := range map[string]struct {
		labels map[string]string
		want   labels.Class
	}{
		"rpull":          {with(), labels.LazyTrace},
		"CRI":            {without(with(labels.CRIImageRef, ref), labels.ImageRef), labels.LazyTrace},
		"plain pull":     {without(with(), labels.ImageRef), labels.TraceLayer},
		"no size":        {without(with(), labels.BlobSize), labels.TraceLayer},
		"rpull download": {with(labels.Download, "download"), labels.TraceLayer},
		"upstream's":     {without(with(), labels.PlanOffset, labels.PlanSize, labels.PlanDigest), labels.TraceLayer},
		"container":      {without(with(), labels.Target), labels.Root},
		"not a trace":    {without(with(), labels.Trace), labels.Lazy},
	} {
		if l, err := labels.Parse(c.labels); err != nil || l.Class() != c.want {
			t.Errorf("%s: %v, %v; want %v", name, l.Class(), err, c.want)
		}
	}
	if a := (labels.TraceBlob{Blob: blob, BlobSize: 1}).Annotations(); len(a) != 4 {
		t.Errorf("without plan and file system: %v", a)
	}
}

func TestRecordPath(t *testing.T) {
	for _, c := range []struct {
		path string
		ok   bool
	}{
		{"/tmp/ctr-record-trace/record-trace-1", true},
		{"/a b/c", true},
		{"", false},
		{"relative", false},
		{"/", false},
		{"/a/../b", false},
		{"/a/", false},
		{"/a\x00b", false},
		{"/" + strings.Repeat("a", 1024), false},
	} {
		l, err := labels.Parse(map[string]string{labels.RecordTrace: "yes", labels.RecordTracePath: c.path})
		if c.ok != (err == nil) || c.ok && (l.RecordPath != c.path || !l.RecordTrace) {
			t.Errorf("%q: %+v, %v", c.path, l, err)
		}
		if err != nil && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), labels.RecordTracePath)) {
			t.Errorf("%q: %v", c.path, err)
		}
	}
}

// FuzzPlan: what is accepted lies within the blob and is written as it was read.
func FuzzPlan(f *testing.F) {
	f.Add("2048", "1000", plan.Digest.String(), "37376")
	f.Add("512", "67108864", plan.Digest.String(), "")
	f.Add("-512", "0x10", "sha512:", "17592186044416")
	f.Fuzz(func(t *testing.T, offset, size, dgst, blobSize string) {
		a := map[string]string{labels.PlanOffset: offset, labels.PlanSize: size, labels.PlanDigest: dgst}
		if blobSize != "" {
			a[labels.BlobSize] = blobSize
		}
		m, err := labels.Plan(a)
		if err != nil {
			if m != (tracelayer.Member{}) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("%+v, %v", m, err)
			}
			return
		}
		total, err := strconv.ParseInt(blobSize, 10, 64)
		if blobSize == "" {
			total, err = labels.MaxBlobSize+tracelayer.MaxPlan, nil
		}
		if err != nil || m.Size < 1 || m.Size > tracelayer.MaxPlan || m.Offset < 512 || m.Offset%512 != 0 || m.Offset+m.Size > total || m.Digest.Validate() != nil {
			t.Errorf("accepted %+v in a blob of %d bytes, %v", m, total, err)
		}
		if got, err := labels.Plan(labels.WithPlan(m)); err != nil || got != m {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
	})
}
