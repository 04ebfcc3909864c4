package sharedindex

import (
	"context"
	"fmt"
)

// Look says who has k's content, and whether it is in the shared tier. Unlike Locate it
// grants nothing.
func (x *Index) Look(ctx context.Context, k Key) (Place, error) {
	place, err := x.locate(ctx, Wanted{Key: k, Extent: Extent{0, 1}}, 0)
	if err != nil {
		return Place{}, fmt.Errorf("looking for content: %w", err)
	}
	return place, nil
}
