package replayer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// patience bounds every wait: what takes so long hangs.
const patience = 2 * time.Minute

// programDir is where the program under trial is built, once.
var programDir string

func TestMain(m *testing.M) {
	code := func() int {
		var err error
		if programDir, err = os.MkdirTemp("", "reprise-replayer-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(programDir)
		flag.Set("test.parallel", "5") //nolint:errcheck // they wait, most of the time; the command line may say otherwise
		code := m.Run()
		if commonUsed.Load() {
			if s, err := common(); err == nil {
				s.kill()
			}
		}
		return code
	}()
	os.Exit(code)
}

// program builds trace-replayer: with the race detector if the tests have it.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programDir, "trace-replayer")
	args := []string{"build", "-o", path, "-ldflags", "-X main.version=trial"}
	cgo := "CGO_ENABLED=0"
	if b, ok := debug.ReadBuildInfo(); ok && slices.Contains(b.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, "./cmd/trace-replayer")...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building trace-replayer: %w\n%s", err, out)
	}
	return path, nil
})

// values is a level of a configuration.
type values = map[string]any

// desk is a folder in which trace-replayer is run.
type desk struct {
	t       *testing.T
	dir     string
	program string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	p, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return &desk{t: t, dir: t.TempDir(), program: p}
}

// write puts a file there and returns its path.
func (d *desk) write(name, text string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// configure writes config.yaml.
func (d *desk) configure(v values) {
	d.t.Helper()
	text, err := json.MarshalIndent(v, "", "  ") // what is JSON is YAML
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("config.yaml", string(text))
}

// read returns what is in a file there.
func (d *desk) read(name string) []byte {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// heard is what a process writes. It may be read meanwhile.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// process is a trace-replayer that was started.
type process struct {
	t         *testing.T
	name      string
	cmd       *exec.Cmd
	out, errs heard
	done      chan struct{} // closed when it has ended
}

// start runs the program. It ends with the test.
func (d *desk) start(args ...string) *process {
	d.t.Helper()
	return d.startWith(nil, args...)
}

func (d *desk) startWith(stdin []byte, args ...string) *process {
	d.t.Helper()
	p := &process{t: d.t, name: "trace-replayer " + strings.Join(args, " "), cmd: exec.Command(d.program, args...), done: make(chan struct{})}
	p.cmd.Dir = d.dir
	p.cmd.Stdin = bytes.NewReader(stdin)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errs
	p.cmd.WaitDelay = patience // for what it started
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		p.cmd.Wait() //nolint:errcheck // ProcessState says how it ended
		close(p.done)
	}()
	d.t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
		said := p.errs.String()
		for _, bad := range []string{"DATA RACE", "panic: ", "goroutine 1 ["} {
			if strings.Contains(said, bad) {
				d.t.Errorf("%s: %q in what it said", p.name, bad)
			}
		}
		if d.t.Failed() || os.Getenv("SHOW") != "" {
			d.t.Logf("%s (%s)\n--- output\n%.6000s\n--- errors\n%.6000s", p.name, p.cmd.ProcessState, p.out.String(), said)
		}
	})
	return p
}

// signal sends a signal to it, if it is still there.
func (p *process) signal(s syscall.Signal) {
	p.cmd.Process.Signal(s) //nolint:errcheck // it may have ended
}

// wait waits for its end and returns the exit status: -1 of one that was killed.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.signal(syscall.SIGQUIT) // it says where it hangs
		<-p.done
		p.t.Fatalf("%s hangs", p.name)
	}
	return p.cmd.ProcessState.ExitCode()
}

// run runs the program to its end. It must have the exit status that is named.
func (d *desk) run(status int, args ...string) *process {
	d.t.Helper()
	p := d.start(args...)
	if got := p.wait(); got != status {
		d.t.Fatalf("%s: exit status %d, want %d", p.name, got, status)
	}
	if status != 0 && !strings.Contains(p.errs.String(), "trace-replayer: ") {
		d.t.Errorf("%s: nothing on standard error says why it failed", p.name)
	}
	return p
}

// says fails the test if one of the texts is not in what was written.
func says(t *testing.T, h fmt.Stringer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(h.String(), text) {
			t.Errorf("%q is not in\n%s", text, h)
		}
	}
}

// until waits for something to become true while p runs.
func until(p *process, what string, holds func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-p.done:
			if holds() {
				return
			}
			p.t.Fatalf("%s ended before %s", p.name, what)
		default:
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s: %s does not come", p.name, what)
		}
	}
}

// client starts a client and returns it with its address.
func (d *desk) client(args ...string) (*process, string) {
	d.t.Helper()
	for range 5 { // the port may be taken before it is listened on
		port, err := testbed.FreePort()
		if err != nil {
			d.t.Fatal(err)
		}
		p := d.clientAt(port, args...)
		if p != nil {
			return p, net.JoinHostPort("127.0.0.1", port)
		}
	}
	d.t.Fatal("no client listens")
	return nil, ""
}

// clientAt starts a client on a port, nil if it ended without listening.
func (d *desk) clientAt(port string, args ...string) *process {
	d.t.Helper()
	p := d.start(append([]string{"client", "-i", "127.0.0.1", "-p", port}, args...)...)
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var dialer net.Dialer
	for {
		c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			c.Close()
			return p
		}
		if errors.Is(err, context.DeadlineExceeded) {
			d.t.Fatal("the client does not listen")
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}
