// Package instance runs the program registry-cache for trials: as a process of
// its own with its own folder, that can be killed, started again and watched.
package instance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// Config is what trials vary.
type Config struct {
	// Program is what Build made.
	Program string
	// Dir is a folder of the instance's own for its configuration and log.
	Dir string
	// Data is dataPath; "" is a folder in Dir.
	Data string
	// Upstream is host:port of the default upstream, plain http; "" is none.
	Upstream string
	// Values are laid over the default configuration, by key.
	Values map[string]any
	// Env is added to the environment.
	Env []string
}

// Instance is a registry-cache. Methods may be called concurrently.
type Instance struct {
	// Address and Metrics are host:port, the same after a restart.
	Address, Metrics string
	// Data is its dataPath.
	Data string

	config  Config
	file    string
	log     string
	process testbed.Process
}

// Values is short for a level of a configuration.
type Values = map[string]any

// Build compiles the program into dir, with further flags of go build.
func Build(ctx context.Context, module, dir string, flags ...string) (string, error) {
	program := filepath.Join(dir, "registry-cache")
	args := append([]string{"build", "-o", program}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/registry-cache")...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building registry-cache: %w\n%s", err, out)
	}
	return program, nil
}

// New writes the configuration of an instance; nothing is started.
func New(c Config) (*Instance, error) {
	i := &Instance{
		config: c, process: testbed.Process{Name: "registry-cache"}, Data: c.Data, file: filepath.Join(c.Dir, "config.yaml"), log: filepath.Join(c.Dir, "registry-cache.log"),
	}
	if i.Data == "" {
		i.Data = filepath.Join(c.Dir, "data")
	}
	for _, a := range []*string{&i.Address, &i.Metrics} {
		var err error
		if *a, err = testbed.FreeAddress(); err != nil {
			return nil, err
		}
	}
	return i, i.Configure(c.Values)
}

// Configure writes the configuration anew for the next Start.
func (i *Instance) Configure(over Values) error {
	server := Values{
		"address": i.Address,
		// The trials' upstreams are on loopback, which is refused by default.
		"allowAddresses": []string{"127.0.0.0/8"},
		"streamers":      1000,
	}
	if i.config.Upstream != "" {
		server["defaultBackend"] = Values{"host": i.config.Upstream, "scheme": "http"}
	}
	all := Values{
		"dataPath": i.Data,
		"server":   server,
		"metrics":  Values{"address": i.Metrics},
	}
	// What is JSON is YAML.
	text, err := json.MarshalIndent(merge(all, over), "", "  ")
	if err != nil {
		return fmt.Errorf("configuring a registry-cache: %w", err)
	}
	return os.WriteFile(i.file, text, 0o600)
}

// merge lays over upon base, level by level.
func merge(base, over Values) Values {
	out := maps.Clone(base)
	for k, v := range over {
		below, ok := out[k].(Values)
		above, both := v.(Values)
		if ok && both {
			v = merge(below, above)
		}
		out[k] = v
	}
	return out
}

// startTimeout bounds a start.
const startTimeout = time.Minute

// Start starts it and waits until it answers. It ends with the caller's
// process.
func (i *Instance) Start(ctx context.Context) error {
	if err := i.Launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return i.process.Await(ctx, i.Log, func(ctx context.Context) error {
		return testbed.Answers(ctx, "http://"+i.Metrics+"/readyz")
	})
}

// Launch starts the process and waits for nothing.
func (i *Instance) Launch() error {
	out, err := os.OpenFile(i.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(i.config.Program, "--config", i.file)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), i.config.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return i.process.Start(cmd)
}

// Done is closed when the process that was started last has ended.
func (i *Instance) Done() <-chan struct{} { return i.process.Done() }

// Pid is that of the process that was started last.
func (i *Instance) Pid() int { return i.process.Pid() }

// Signal sends a signal to it.
func (i *Instance) Signal(s syscall.Signal) error { return i.process.Signal(s) }

// stopGrace is how long it has to drain after SIGTERM.
const stopGrace = 30 * time.Second

// Kill sends SIGKILL and waits for the end.
func (i *Instance) Kill() { i.process.End(syscall.SIGKILL, stopGrace) }

// Stop sends SIGTERM and waits. An end that is not clean, or none, is an error.
func (i *Instance) Stop() error {
	switch state, killed := i.process.End(syscall.SIGTERM, stopGrace); {
	case killed:
		return errors.New("stopping registry-cache: it did not end")
	case state != nil && !state.Success():
		return fmt.Errorf("stopping registry-cache: %s", state)
	}
	return nil
}

// Command runs a subcommand against the running instance and returns what it
// printed.
func (i *Instance) Command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, i.config.Program, append(args[:1:1], append([]string{"--config", i.file}, args[1:]...)...)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("registry-cache %v: %w: %s", args, err, complaint.String())
	}
	return out.String(), nil
}

// Log returns all that it has written.
func (i *Instance) Log() string {
	b, err := os.ReadFile(i.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Forget has Stop do nothing about a process that was to fail.
func (i *Instance) Forget() { i.process.Forget() }
