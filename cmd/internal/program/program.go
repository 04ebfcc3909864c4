// Package program runs the long-lived tasks of a daemon and ends them in a
// stated order.
package program

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Task is a long-lived part of a daemon.
type Task struct {
	// Name says what ended, in errors.
	Name string
	// Run works until ctx ends and returns after everything it started has
	// ended. Returning earlier, even without an error, ends the program.
	Run func(ctx context.Context) error
}

// Stage is a set of tasks that start and end together.
type Stage []Task

// Run starts all stages and waits for their end. When ctx ends, or a task
// returns, the stages are cancelled from the last to the first, each only
// after the one behind it has ended: a task may rely on all earlier stages
// for as long as it runs. Run returns the error of the task that ended the
// program, joined with those of tasks that failed during shutdown.
func Run(ctx context.Context, stages ...Stage) error {
	ended := make(chan error, 1)
	live := make([]*running, len(stages))
	for i, s := range stages {
		live[i] = start(ctx, s, ended)
	}
	var errs []error
	select {
	case <-ctx.Done():
	case err := <-ended:
		errs = append(errs, err)
	}
	for i := len(live) - 1; i >= 0; i-- {
		errs = append(errs, live[i].stop())
	}
	return errors.Join(errs...)
}

type running struct {
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	mu     sync.Mutex
	errs   []error
}

// start runs the tasks of a stage; the first of the whole program to end
// before it was asked to says so on ended.
func start(ctx context.Context, s Stage, ended chan<- error) *running {
	// Stages end one after another, so none of them is bound to ctx.
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &running{cancel: cancel}
	for _, t := range s {
		r.tasks.Go(func() {
			err := t.Run(sctx)
			if sctx.Err() != nil {
				r.failed(t.Name, err)
				return
			}
			if err == nil {
				err = errors.New("ended by itself")
			}
			select {
			case ended <- fmt.Errorf("%s: %w", t.Name, err):
			default:
				r.failed(t.Name, err)
			}
		})
	}
	return r
}

func (r *running) failed(name string, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
}

func (r *running) stop() error {
	r.cancel()
	r.tasks.Wait()
	return errors.Join(r.errs...)
}
