package instance

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Metrics is what a scrape gave: the value of each series, by its name with
// labels as they are written.
type Metrics map[string]float64

// Sum adds the series of a name whose labels hold all the given texts
// (`reason="size"`).
func (m Metrics) Sum(name string, labels ...string) float64 {
	var sum float64
series:
	for k, v := range m {
		base, rest, _ := strings.Cut(k, "{")
		if base != name {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue series
			}
		}
		sum += v
	}
	return sum
}

// Scrape reads all metrics.
func (i *Instance) Scrape(ctx context.Context) (Metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.Metrics+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := Metrics{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("reading metrics: %q: %w", line, err)
		}
		out[line[:at]] = v
	}
	return out, lines.Err()
}

// Resident returns the resident memory of the process in bytes.
func (i *Instance) Resident() (int64, error) { return i.status("VmRSS:") }

// Anonymous is Resident without mapped files.
func (i *Instance) Anonymous() (int64, error) { return i.status("RssAnon:") }

func (i *Instance) status(field string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.Pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", i.Pid(), field)
}

// Descriptors returns what the open file descriptors of the process refer to, folders
// left out: the cache keeps those of its blobs open, 256 at most.
func (i *Instance) Descriptors() ([]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", i.Pid())
	fds, err := os.ReadDir(dir)
	var out []string
	for _, fd := range fds {
		name := filepath.Join(dir, fd.Name())
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			continue
		}
		if to, err := os.Readlink(name); err == nil {
			out = append(out, to)
		}
	}
	return out, err
}

// Files returns the regular files below dataPath with their sizes on disk in
// bytes, by path relative to it.
func (i *Instance) Files() (map[string]int64, error) {
	out := map[string]int64{}
	err := filepath.WalkDir(i.Data, func(p string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		blocks, err := allocated(p)
		if os.IsNotExist(err) {
			return nil
		}
		rel, _ := filepath.Rel(i.Data, p)
		out[rel] = blocks
		return err
	})
	return out, err
}
