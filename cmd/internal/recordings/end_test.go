package recordings_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/recordings"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestLabelTime: who asks for a recording can not hold its place for ever.
func TestLabelTime(t *testing.T) {
	n := newNode(t, func(c *recordings.Config) { c.LabelTime, c.Parallel = 2*time.Second, 1 })
	path := n.file("trace")
	n.start("1", path)
	if failed := n.wait(path); failed != "" { // nobody removes the lock
		t.Fatal(failed)
	}
	n.check(path, 3)
	n.until("there is room", func() bool { return n.Wanted(ref) })
}

// TestPlanTime: a registry that does not answer costs the plan, not the trace.
func TestPlanTime(t *testing.T) {
	n := newNode(t, func(c *recordings.Config) { c.PlanTime = 50 * time.Millisecond })
	n.stalled = make(chan struct{})
	path := n.file("trace")
	n.start("1", path)
	n.Ended("1")
	if failed := n.wait(path); failed != "" {
		t.Fatal(failed)
	}
	text, err := os.ReadFile(path)
	n.must(err)
	if trace, err := tracelayer.Decode(text); err != nil || len(trace) == 0 {
		t.Errorf("%d records, %v", len(trace), err)
	}
	for _, suffix := range []string{".plan", ".data", ".err", ".lock"} {
		if exists(path + suffix) {
			t.Errorf("there is %s", suffix)
		}
	}
	n.until("it is told", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.results) == 1
	})
	if r := n.results[0]; r.NoPlan == nil || !strings.Contains(r.NoPlan.Error(), "too long") || r.Records == 0 || r.Path != path || r.Ref != ref {
		t.Errorf("%+v", r)
	}
}

// TestAbandon: whatever an earlier daemon left, whoever waits is told, and what is
// whole is not thrown away.
func TestAbandon(t *testing.T) {
	whole := string(tracelayer.Trace{{Op: tracelayer.Read, Count: 512}}.Encode())
	for name, c := range map[string]struct {
		before map[string]string // content by suffix
		after  map[string]string
	}{
		"recording":              {map[string]string{"": "", ".lock": ""}, map[string]string{"": "", ".err": "stopped"}},
		"to end":                 {map[string]string{"": ""}, map[string]string{"": "", ".err": "stopped"}},
		"half a plan":            {map[string]string{"": "", ".data": "x"}, map[string]string{"": "", ".data": "x", ".err": "stopped"}},
		"half a plan, locked":    {map[string]string{"": "", ".data": "x", ".lock": ""}, map[string]string{"": "", ".err": "stopped"}},
		"half a trace":           {map[string]string{"": whole[:30], ".plan": "p"}, map[string]string{"": whole[:30], ".plan": "p", ".err": "stopped"}},
		"half a trace, locked":   {map[string]string{"": whole[:30], ".lock": ""}, map[string]string{"": "", ".err": "stopped"}},
		"whole":                  {map[string]string{"": whole, ".plan": "p", ".data": "d"}, map[string]string{"": whole, ".plan": "p", ".data": "d", ".ok": ""}},
		"whole, locked":          {map[string]string{"": whole, ".lock": ""}, map[string]string{"": whole, ".ok": ""}},
		"something else by now":  {map[string]string{"": "mine"}, map[string]string{"": "mine", ".err": "stopped"}},
		"told that it is there":  {map[string]string{"": whole, ".ok": ""}, map[string]string{"": whole, ".ok": ""}},
		"told that it is not":    {map[string]string{"": "", ".err": "boom"}, map[string]string{"": "", ".err": "boom"}},
		"collected by its owner": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, nil)
			path := filepath.Join(n.dir, "trace")
			for suffix, text := range c.before {
				n.must(os.WriteFile(path+suffix, []byte(text), 0o600))
			}
			for range 2 { // the container may outlive many daemons
				n.Abandon("1", snapshot.RecordOptions{Asked: true, File: path})
				for _, suffix := range []string{"", ".lock", ".plan", ".data", ".ok", ".err"} {
					want, ok := c.after[suffix]
					text, err := os.ReadFile(path + suffix)
					if ok != (err == nil) || !strings.HasPrefix(string(text), want) && !strings.Contains(string(text), want) || suffix != ".err" && string(text) != want {
						t.Errorf("%q has %q, %v; want %q", suffix, text, err, want)
					}
				}
			}
		})
	}
	n := newNode(t, func(c *recordings.Config) { c.Paths = nil })
	path := n.file("trace")
	n.must(os.WriteFile(path+".lock", nil, 0o600))
	n.Abandon("1", snapshot.RecordOptions{Asked: true, File: path})
	if exists(path+".err") || !exists(path+".lock") {
		t.Error("a file elsewhere was touched")
	}
}
