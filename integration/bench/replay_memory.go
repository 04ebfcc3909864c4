package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
)

// replayMemory shows what memory generating and simulating takes as traces grow: the
// one program writes the trace into a pipe, the other reads it from there.
func (b bench) replayMemory(ctx context.Context) error {
	p, err := b.newPlayer(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	fmt.Printf("\nGenerating and simulating, peak of resident memory\n%-10s %-22s %10s %10s %12s %12s %10s\n",
		"requests", "simulated", "accesses", "objects", "generate MB", "simulate MB", "seconds")
	// The whole trace is in memory for a share of its content, and is not for a size.
	for _, size := range []string{"100GiB", "1%"} {
		for _, n := range []int{2_000_000, 20_000_000} {
			if err := p.simulates(ctx, n, size); err != nil {
				return fmt.Errorf("simulating %d requests at %s: %w", n, size, err)
			}
		}
	}
	return nil
}

func (p player) simulates(ctx context.Context, n int, size string) error {
	file := filepath.Join(p.dir, "report.json")
	generate := exec.CommandContext(ctx, p.program, "generate", "--read-only", "-n", strconv.Itoa(n), "--seed", "1")
	from, err := generate.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := generate.Start(); err != nil {
		return err
	}
	simulated, err := p.run(ctx, "simulate", instance.Values{
		"trace": instance.Values{"traces": []string{"-"}},
		"simulate": instance.Values{
			"policies": []string{"lru"}, "sizes": []string{size}, "curve": instance.Values{"exact": false},
			"report": instance.Values{"json": file},
		},
	}, from)
	if err != nil {
		generate.Process.Kill() //nolint:errcheck // it may have ended
	}
	if e := generate.Wait(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var r simulate.Report
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	fmt.Printf("%-10d %-22s %10d %10d %12.0f %12.0f %10.0f\n", n, "lru, "+size, r.Requests, r.Objects,
		peak(generate), peak(simulated), time.Since(began).Seconds())
	return nil
}

// peak returns the largest resident memory of a process that ended, in MB.
func peak(cmd *exec.Cmd) float64 {
	u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return float64(u.Maxrss) * 1024 / 1e6
}
