package sharedindex_test

import (
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

// reply makes of text a reply of Redis: its lines are the parts. A part that begins with
// '#' is a number, one that is "nil" is none.
func reply(text string) any {
	if text == "nil" {
		return nil
	}
	list := []any{}
	for _, s := range strings.Split(text, "\n") {
		switch {
		case s == "nil":
			list = append(list, nil)
		case strings.HasPrefix(s, "#"):
			list = append(list, int64(len(s)))
		default:
			list = append(list, s)
		}
	}
	return list
}

func FuzzPlace(f *testing.F) {
	for _, s := range []string{
		"none\n0\n0\n0\n\n0\n0", "lease\n7\n0\n9\na:1\n0\n0\nb:1\nc:1", "fetching\n7\n0\n9\na:1\n8\n9\nb:1\nb:1\nb:1\nb:1",
		"fetching\n7\n0\n9\n\n8\n9", "lease\n0\n0\n9\na:1\n0\n0", "lease\n7\n9\n9\na:1\n0\n0", "none\n-1\n0\n0\n\n0\n0",
		"none\n0\n0\n0\n\n9007199254740992\n0", "none\n0\n0\n0\n\n0\n0\na b", "nil", "#", "none\n#\n0\n0\n\n0\n0", "other\n7\n0\n9\na:1\n0\n0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := sharedindex.ParsePlace(reply(text))
		if err != nil {
			return
		}
		if p.Lease != nil && (p.Fetching != nil || p.Lease.Token == 0 || p.Lease.Off < 0 || p.Lease.End <= p.Lease.Off) {
			t.Fatalf("lease %+v", p)
		}
		if p.Fetching != nil && (p.Fetching.Token == 0 || p.Fetching.Off < 0 || p.Fetching.End <= p.Fetching.Off || p.Fetching.Replica == "") {
			t.Fatalf("fetching %+v", p)
		}
		if p.Stored != nil && (p.Stored.Generation == 0 || p.Stored.Size < 0) {
			t.Fatalf("stored %+v", p)
		}
		for _, h := range p.Holders {
			if h == "" || strings.ContainsAny(h, " \n\x00") {
				t.Fatalf("holder %q", h)
			}
		}
		if len(p.Holders) > sharedindex.MaxHolders {
			t.Fatalf("%d holders", len(p.Holders))
		}
	})
}

func FuzzReplicas(f *testing.F) {
	for _, s := range []string{"5", "5\na:1\n3 fine", "5\nb:1\n9 \na:1\n0 x y", "", "5\na:1", "5\na:1\n3", "5\na b\n3 ", "5\na:1\nx ", "nil", "#"} {
		f.Add(s)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, text string) {
		all, err := sharedindex.ParseReplicas(reply(text), now)
		if err != nil {
			return
		}
		for _, r := range all {
			if r.Name == "" || r.Seen.After(now) || len(r.Status) > sharedindex.MaxStatus {
				t.Fatalf("replica %+v", r)
			}
		}
	})
}

// FuzzGrant: what is granted is bounded, and is kept for no negative time.
func FuzzGrant(f *testing.F) {
	for _, s := range []string{
		"5\n\n0", "5\nyes\n7", "5\n" + strings.Repeat("x", sharedindex.MaxValue+1) + "\n1", "0\nx\n0", "x\n\n0", "5\nyes\n-1",
		"5\nyes\n9007199254740991", "5\nyes\n9007199254740992", "5", "nil", "#\n#", "5\nnil\n0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := sharedindex.ParseGrant(reply(text))
		if err == nil && (g.Value != nil && len(g.Value) == 0 || len(g.Value) > sharedindex.MaxValue || g.Left < 0 || g.Value == nil && g.Left != 0) {
			t.Fatalf("%q is granted: %+v", text, g)
		}
	})
}

func FuzzPosition(f *testing.F) {
	for _, s := range []string{"", "0-0/0", "5-7/9", "5-7", "5/7", "18446744073709551615-18446744073709551615/9007199254740991", "18446744073709551616-0/0", "-1-0/0", "5-7/9/9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := sharedindex.ParsePosition(s)
		if err != nil {
			return
		}
		if again, err := sharedindex.ParsePosition(text); err != nil || again != text {
			t.Fatalf("%q is %q, and that is %q, %v", s, text, again, err)
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add("5-7", "1", "a:1", "payload")
	f.Add("5-7", "0", "a:1", "")
	f.Add("5-", "-1", "", "\x00")
	f.Fuzz(func(t *testing.T, id, n, replica, payload string) {
		a, err := sharedindex.ParseEntry(id, map[string]any{"n": n, "replica": replica, "payload": payload})
		if err != nil || a.Replica == "" {
			return
		}
		if _, err := sharedindex.ParsePosition(a.ID); err != nil || string(a.Payload) != payload || a.Missed {
			t.Fatalf("announcement %+v, %v", a, err)
		}
	})
}
