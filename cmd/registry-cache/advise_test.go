package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/workload/generate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// advises returns what the command prints.
func advises(args ...string) (string, error) {
	var out strings.Builder
	a := app()
	a.Writer = &out
	err := a.Run(context.Background(), append([]string{"registry-cache"}, args...))
	return out.String(), err
}

// Settings are recommended for the log that the configuration names.
func TestAdvise(t *testing.T) {
	dir := t.TempDir()
	log, config := filepath.Join(dir, "access.log"), filepath.Join(dir, "config.yaml")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g, err := generate.New(generate.Config{Seed: 1, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	w := trace.NewArrayWriter(f)
	for range 20_000 {
		r, _ := g.Next()
		if err := w.Write(r.Record()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("accessLog: {path: %s, format: trace}\ngc: {disk: {maxSize: 10GB}}\n", log)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := advises("--config", config, "advise", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Recorded struct {
			Curves []struct{ Points []any }
		}
		Advice struct {
			Policy  string
			MaxSize int64
			Reasons []string
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	a := got.Advice
	if a.Policy == "" || a.MaxSize <= 0 || a.MaxSize > 10e9 || len(a.Reasons) == 0 || len(got.Recorded.Curves) != 1 || len(got.Recorded.Curves[0].Points) == 0 {
		t.Errorf("%+v", got)
	}
	out, err = advises("advise", "--disk", "1GB", log)
	if err != nil || !strings.Contains(out, "gc:") || !strings.Contains(out, "MISS RATIO") || !strings.Contains(out, "Expected") {
		t.Errorf("%v\n%s", err, out)
	}
	for want, args := range map[string][]string{
		"no access log":     {"advise"},
		"--disk":            {"advise", "--disk", "many", log},
		"format must be":    {"advise", config},
		"no such file":      {"advise", filepath.Join(dir, "none")},
		"unknown key \"x\"": {"--config", write(t, dir, "x: 1"), "advise"},
	} {
		if _, err := advises(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error with %q", args, err, want)
		}
	}
}

func write(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
