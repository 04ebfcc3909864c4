package instance

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// skewVariable names the file that says how wrong the clock of a program that
// BuildSkewed made is.
const skewVariable = "REPRISE_TRIAL_SKEW"

// honestNow is the line of package time that reads the clock.
const honestNow = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"

// skewSource is added to package time.
const skewSource = `package time

import (
	"sync/atomic"
	"syscall"
)

var trialSkew atomic.Int64

func init() {
	name, ok := syscall.Getenv("` + skewVariable + `")
	if !ok {
		return
	}
	readTrialSkew(name)
	go func() {
		for {
			Sleep(10 * Millisecond)
			readTrialSkew(name)
		}
	}()
}

func readTrialSkew(name string) {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	var b [32]byte
	n, _ := syscall.Read(fd, b[:])
	syscall.Close(fd)
	sign, v := int64(1), int64(0)
	for i := 0; i < n; i++ {
		switch {
		case b[i] == '-':
			sign = -1
		case b[i] >= '0' && b[i] <= '9':
			v = v*10 + int64(b[i]-'0')
		}
	}
	trialSkew.Store(sign * v)
}
`

// BuildSkewed is Build for a program whose wall clock can be set: package time of
// the standard library is replaced at build time by one that adds what a file says.
// The monotonic clock stays, as it does when a machine's clock is set.
func BuildSkewed(ctx context.Context, module, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("finding the standard library: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	changed := strings.Replace(string(text), honestNow, honestNow+"\tsec += trialSkew.Load()\n", 1)
	if changed == string(text) {
		return "", fmt.Errorf("%s reads the clock in another way than is known", original)
	}
	replaced := map[string]string{}
	for name, source := range map[string]string{"time.go": changed, "trial_skew.go": skewSource} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
			return "", err
		}
		replaced[filepath.Join(filepath.Dir(original), name)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		return "", err
	}
	return Build(ctx, module, dir, "-overlay", path)
}

// Clock is the clock of an instance that BuildSkewed built.
type Clock string

// NewClock returns a clock that is right, and what the instance needs in Env.
func NewClock(dir string) (Clock, []string, error) {
	c := Clock(filepath.Join(dir, "skew"))
	return c, []string{skewVariable + "=" + string(c)}, c.Set(0)
}

// Set has the clock be wrong by d, in whole seconds, some milliseconds from now.
func (c Clock) Set(d time.Duration) error {
	tmp := string(c) + ".new"
	if err := os.WriteFile(tmp, strconv.AppendInt(nil, int64(d/time.Second), 10), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, string(c))
}
