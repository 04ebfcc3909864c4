package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// maxWindow is how many items a client holds that it has not begun with.
const maxWindow = 4096

var errWindow = errors.New("more items came than were asked for")

// job is what a client does for its master. It is the load.Source of what runs it.
type job struct {
	order order
	out   *outbox
	items chan load.Item
	whole bool // all items have come
}

func newJob(o order, out *outbox, window int) *job {
	return &job{order: o, out: out, items: make(chan load.Item, window)}
}

// put takes items of the master.
func (j *job) put(items []load.Item) error {
	if j.whole {
		return errUnexpected
	}
	for _, it := range items {
		select {
		case j.items <- it:
		default:
			return errWindow
		}
	}
	return nil
}

// end tells that there are no more items.
func (j *job) end() {
	if !j.whole {
		j.whole = true
		close(j.items)
	}
}

// Next implements load.Source.
func (j *job) Next(ctx context.Context) (load.Item, error) {
	select {
	case it, ok := <-j.items:
		if !ok {
			return load.Item{}, io.EOF
		}
		j.out.took()
		return it, nil
	case <-ctx.Done():
		return load.Item{}, context.Cause(ctx)
	}
}

// run does the job, and tells how it ended.
func (j *job) run(ctx context.Context, cfg ClientConfig, c clock) {
	stats, err := j.send(ctx, cfg, c)
	d := done{Stats: stats}
	if err != nil {
		d.Err = err.Error()
	}
	j.out.finish(d)
}

func (j *job) send(ctx context.Context, cfg ClientConfig, c clock) (load.Stats, error) {
	start := c.time(j.order.Start)
	what := j.order.Job.Load
	what.Start = start
	runner, err := cfg.New(what)
	if err != nil {
		return load.Stats{}, fmt.Errorf("preparing the job: %w", err)
	}
	if r, ok := runner.(interface{ Close() }); ok {
		defer r.Close()
	}
	if late := time.Since(start); late > 0 {
		return load.Stats{}, fmt.Errorf("the order came %v after the start", late)
	}
	var stats func() load.Stats
	if r, ok := runner.(interface{ Stats() load.Stats }); ok {
		stats = r.Stats
	}
	j.out.begin(stats)
	return runner.Run(ctx, j, func(r load.Result) { j.out.add(ctx, pack(r, start)) })
}
