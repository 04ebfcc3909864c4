package snapshot_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot"
)

// BenchmarkContainer prepares and removes a container on a node with many
// images and containers: the time must not grow much with them.
func BenchmarkContainer(b *testing.B) {
	for _, size := range []int{1, 1000} {
		b.Run(fmt.Sprint(size, " others"), func(b *testing.B) {
			s, err := snapshot.New(b.Context(), snapshot.Config{Root: filepath.Join(b.TempDir(), "root")}, &fakeDevices{busy: map[string]bool{}, mounted: map[string]backstore.Image{}})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			for i := range size {
				names := []string{"base", fmt.Sprint(i)}
				for l := range names {
					s.Prepare(b.Context(), "extract", parentOf(names, l), snapshots.WithLabels(unpackLabels(names, l)))
				}
				if _, err := s.Prepare(b.Context(), fmt.Sprint("c", i), chainOf(names...)[1]); err != nil {
					b.Fatal(err)
				}
			}
			top := chainOf("base", "0")[1]
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Prepare(b.Context(), "c", top); err != nil {
					b.Fatal(err)
				}
				if err := s.Remove(b.Context(), "c"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
