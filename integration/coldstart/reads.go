package coldstart

import (
	"context"
	"fmt"

	"github.com/reprise-containers/reprise/integration/sandbox"
)

// Reads is what the daemon counts of reads that somebody waits for.
type Reads struct {
	// Asked are reads of compressed data by whatever serves devices, Missed
	// those among them for which a registry was asked.
	Asked, Missed float64
}

func (r Reads) since(before Reads) Reads {
	return Reads{Asked: r.Asked - before.Asked, Missed: r.Missed - before.Missed}
}

func countReads(ctx context.Context, d *sandbox.Snapshotter) (r Reads, err error) {
	for tier, to := range map[string]*float64{"cache": &r.Asked, "origin": &r.Missed} {
		name := fmt.Sprintf(`reprise_read_seconds_count{priority="demand",tier=%q}`, tier)
		if *to, err = d.Metric(ctx, name); err != nil {
			return r, err
		}
	}
	return r, nil
}
