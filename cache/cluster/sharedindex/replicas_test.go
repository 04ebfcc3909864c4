package sharedindex_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

// beat is Beat for those who do not look at what was said before.
func beat(ctx context.Context, x *sharedindex.Index, status []byte) error {
	_, _, err := x.Beat(ctx, status)
	return err
}

// A replica learns what was said in its name before, and that nothing was.
func TestBeatBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		a := w.replica(t, "a:1")
		for i, status := range []string{"one", "", "three"} {
			before, known, err := a.Beat(t.Context(), []byte(status))
			must(t, err)
			if want := []string{"", "one", ""}[i]; known != (i > 0) || string(before) != want {
				t.Errorf("beat %d: %q, %v before", i, before, known)
			}
		}
		must(t, w.client(t).Del(t.Context(), "test:{replicas}:beats").Err())
		if before, known, err := a.Beat(t.Context(), nil); err != nil || known {
			t.Errorf("after the index has lost it: %q, %v, %v", before, known, err)
		}
	})
}

func TestReplicas(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
		all, err := a.Replicas(t.Context())
		if must(t, err); len(all) != 0 {
			t.Fatalf("replicas %+v", all)
		}
		must(t, beat(t.Context(), b, []byte("b \x00 is fine")))
		must(t, beat(t.Context(), a, nil))
		must(t, beat(t.Context(), b, []byte("b is ill")))
		all, err = a.Replicas(t.Context())
		must(t, err)
		if len(all) != 2 || all[0].Name != "a:1" || all[1].Name != "b:1" || string(all[1].Status) != "b is ill" || len(all[0].Status) != 0 {
			t.Fatalf("replicas %+v", all)
		}
		if all[0].Seen.IsZero() || all[0].Seen.After(time.Now()) {
			t.Errorf("seen %s", all[0].Seen)
		}
		if beat(t.Context(), a, make([]byte, sharedindex.MaxStatus+1)) == nil {
			t.Error("a status that is too long was taken")
		}

		// Who is silent is gone, for those who ask and, by the next beat, from Redis.
		c := w.config("c:1")
		c.BeatTTL = time.Millisecond
		c.Prefix = "hasty"
		gone := open(t, c)
		must(t, beat(t.Context(), gone, nil))
		eventually(t, func() error {
			if all, err := gone.Replicas(t.Context()); err != nil || len(all) != 0 {
				return fmt.Errorf("replicas %+v, %w", all, err)
			}
			return nil
		})
		admin := w.client(t)
		must(t, admin.HSet(t.Context(), "test:{replicas}:beats", "old:1", "1 status").Err())
		must(t, beat(t.Context(), a, nil))
		if n, err := admin.HLen(t.Context(), "test:{replicas}:beats").Result(); err != nil || n != 2 {
			t.Errorf("%d replicas are kept, %v", n, err)
		}
	})
}
