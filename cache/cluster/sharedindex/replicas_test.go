package sharedindex_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

func TestReplicas(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
		all, err := a.Replicas(t.Context())
		if must(t, err); len(all) != 0 {
			t.Fatalf("replicas %+v", all)
		}
		must(t, b.Beat(t.Context(), []byte("b \x00 is fine")))
		must(t, a.Beat(t.Context(), nil))
		must(t, b.Beat(t.Context(), []byte("b is ill")))
		all, err = a.Replicas(t.Context())
		must(t, err)
		if len(all) != 2 || all[0].Name != "a:1" || all[1].Name != "b:1" || string(all[1].Status) != "b is ill" || len(all[0].Status) != 0 {
			t.Fatalf("replicas %+v", all)
		}
		if all[0].Seen.IsZero() || all[0].Seen.After(time.Now()) {
			t.Errorf("seen %s", all[0].Seen)
		}
		if a.Beat(t.Context(), make([]byte, sharedindex.MaxStatus+1)) == nil {
			t.Error("a status that is too long was taken")
		}

		// Who is silent is gone, for those who ask and, by the next beat, from Redis.
		c := w.config("c:1")
		c.BeatTTL = time.Millisecond
		c.Prefix = "hasty"
		gone := open(t, c)
		must(t, gone.Beat(t.Context(), nil))
		eventually(t, func() error {
			if all, err := gone.Replicas(t.Context()); err != nil || len(all) != 0 {
				return fmt.Errorf("replicas %+v, %w", all, err)
			}
			return nil
		})
		admin := w.client(t)
		must(t, admin.HSet(t.Context(), "test:{replicas}:beats", "old:1", "1 status").Err())
		must(t, a.Beat(t.Context(), nil))
		if n, err := admin.HLen(t.Context(), "test:{replicas}:beats").Result(); err != nil || n != 2 {
			t.Errorf("%d replicas are kept, %v", n, err)
		}
	})
}
