package load_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// TestChecks reads blobs several times, whole and in part, of which the registry has
// at last other bytes than at first. What is pushed for a URI is compared; what is
// there instead of it, as its digest wants it, is hashed.
func TestChecks(t *testing.T) {
	const seed = 5
	uri := func(what string) string { return "v2/a/blobs/" + what }
	made := func(what string, size int64) []byte {
		p, err := io.ReadAll(content.New(seed, false).Body(uri(what), size))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		name string
		body []byte
		seen bool // as a whole, before it is read in part
		// mismatches of: the first whole, the second, a part; and of those after a byte changed
		want string
	}{
		{"large", made("large", 100_000), true, "false false false true true"},
		{"small", made("small", 100), true, "false false false true true"},
		{"large, not seen", made("large, not seen", 100_000), false, "false true true"},
		{"small, not seen", made("small, not seen", 100), false, "false true true"},
		{"another's", made("another", 100_000), true, "false false false true false"},
		{"another's, not seen", made("another", 100_000), false, "false true false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRegistry(t)
			d := g.add("a", c.body)
			cfg := to(g.Server)
			cfg.Seed, cfg.Closed = seed, true
			whole := load.Item{Op: load.Get, Kind: trace.Blob, URI: uri(c.name), Path: "/v2/a/blobs/" + d.String(), Digest: d}
			part := whole
			part.Off, part.Len = 33, 44
			all := []load.Item{part, whole, part}
			if c.seen {
				all = []load.Item{whole, whole, part, whole, part}
			}
			for i := range all {
				all[i].Seq = uint64(i)
			}
			e, err := load.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var got []bool
			_, err = e.Run(t.Context(), &items{rest: all}, func(r load.Result) {
				got = append(got, r.Cause == load.CauseMismatch)
				if r.Cause != "" && r.Cause != load.CauseMismatch {
					t.Errorf("%+v", r)
				}
				if len(got) == len(all)-2 {
					changed := bytes.Clone(c.body)
					changed[50] ^= 1
					g.mu.Lock()
					g.blobs["a@"+d.String()] = changed
					g.mu.Unlock()
				}
			})
			if err != nil || fmt.Sprint(got) != "["+c.want+"]" {
				t.Errorf("mismatches %v, want %s, %v", got, c.want, err)
			}
		})
	}
}

// TestShort has bodies that end early although they are framed well.
func TestShort(t *testing.T) {
	g := newRegistry(t)
	p, err := io.ReadAll(content.New(0, false).Body("v2/a/blobs/x", 50_000))
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(p)
	g.blobs["a@"+d.String()] = p[:49_999]
	if r := run(t, to(g.Server), load.Item{Op: load.Get, Kind: trace.Blob, URI: "v2/a/blobs/x", Path: "/v2/a/blobs/" + d.String(), Digest: d})[0]; r.Cause != load.CauseMismatch {
		t.Errorf("%+v", r)
	}
}
