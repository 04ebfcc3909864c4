package obdconv

import (
	"context"
	"io"
)

// Yield makes room in root for an archive.
func Yield(ctx context.Context, root string, r io.Reader) error { return newLower(root).yield(ctx, r) }
