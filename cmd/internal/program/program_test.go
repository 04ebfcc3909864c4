package program_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/program"
)

type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

// task runs until told to end, and takes a second to do so.
func (j *journal) task(name string) program.Task {
	return program.Task{Name: name, Run: func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(time.Second)
		j.add(name)
		return ctx.Err()
	}}
}

func TestStagesEndLastFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		err := program.Run(ctx,
			program.Stage{j.task("devices")},
			program.Stage{j.task("snapshotter")},
			program.Stage{j.task("grpc")})
		if err != nil {
			t.Errorf("Run = %v, want nil after a cancelled context", err)
		}
		if want := []string{"grpc", "snapshotter", "devices"}; !slices.Equal(j.lines, want) {
			t.Errorf("ended in order %v, want %v", j.lines, want)
		}
	})
}

func TestFailingTaskEndsProgram(t *testing.T) {
	boom := errors.New("boom")
	for name, ret := range map[string]error{"with an error": boom, "by itself": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				err := program.Run(t.Context(),
					program.Stage{j.task("devices")},
					program.Stage{{Name: "grpc", Run: func(context.Context) error { return ret }}})
				if err == nil || !strings.Contains(err.Error(), "grpc") {
					t.Errorf("Run = %v, want an error that names grpc", err)
				}
				if ret != nil && !errors.Is(err, ret) {
					t.Errorf("Run = %v, want it to wrap %v", err, ret)
				}
				if !slices.Equal(j.lines, []string{"devices"}) {
					t.Errorf("devices did not end: %v", j.lines)
				}
			})
		})
	}
}

func TestShutdownErrorsAreKept(t *testing.T) {
	late := errors.New("flush failed")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := program.Run(ctx, program.Stage{{Name: "cache", Run: func(ctx context.Context) error {
		<-ctx.Done()
		return late
	}}})
	if !errors.Is(err, late) {
		t.Errorf("Run = %v, want %v", err, late)
	}
}
