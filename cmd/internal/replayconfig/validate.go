package replayconfig

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
)

// Mode is what trace-replayer is asked to do.
type Mode string

// The modes of the original.
const (
	ModeWarmup   Mode = "warmup"
	ModeRun      Mode = "run"
	ModeSimulate Mode = "simulate"
)

// Modes are all of them.
var Modes = []Mode{ModeWarmup, ModeRun, ModeSimulate}

// For reports what a mode needs and the configuration does not have.
func (c Config) For(m Mode) error {
	var v verdict
	v.check(len(c.Trace.Traces) > 0, "trace.traces: %s needs a list of files", m)
	if m == ModeWarmup || m == ModeRun {
		v.check(len(c.Registry) > 0, "registry: %s needs a list of registries, as host:port", m)
	}
	if m == ModeRun {
		v.check(c.Run.Loop == 1 || !slices.Contains(c.Trace.Traces, "-"), "run.loop: standard input (trace.traces: -) can be read once only")
	}
	if m == ModeWarmup {
		v.check(c.Warmup.Output != "", "warmup.output: the file for the interim map is not named")
	}
	return errors.Join(v...)
}

// Validate reports every value that cannot work, each with its key.
func (c Config) Validate() error {
	var v verdict
	for i, a := range c.ClientInfo.ClientList {
		v.address(fmt.Sprintf("client_info.client_list[%d]", i), a)
	}
	v.check(c.ClientInfo.Threads > 0, "client_info.threads: must be positive")
	v.trace(c.Trace)
	for i, r := range c.Registry {
		v.registry(fmt.Sprintf("registry[%d]", i), r)
	}
	for i, a := range c.Access {
		v.access(fmt.Sprintf("access[%d]", i), a, c.Registry)
	}
	v.warmup(c.Warmup)
	v.run(c.Run)
	v.check(c.Cluster.Secret == "" || c.Cluster.SecretFile == "", "cluster: secret and secret_file: only one of them")
	v.oneOf("cluster.lost", c.Cluster.Lost, "proceed", "takeover", "stop")
	v.check(c.Cluster.Heartbeat > 0, "cluster.heartbeat: must be positive")
	v.simulate(c.Simulate)
	v.check(c.Generate.Requests > 0, "generate.requests: must be positive")
	v.check(c.Generate.Rate > 0, "generate.rate: must be positive")
	if c.Report.Metrics != "" {
		v.address("report.metrics", c.Report.Metrics)
	}
	return errors.Join(v...)
}

// verdict collects what is wrong.
type verdict []error

func (v *verdict) check(ok bool, format string, args ...any) {
	if !ok {
		*v = append(*v, fmt.Errorf(format, args...))
	}
}

func (v *verdict) oneOf(key, value string, legal ...string) {
	v.check(slices.Contains(legal, value), "%s = %q: must be one of %s", key, value, strings.Join(legal, ", "))
}

func (v *verdict) address(key, value string) {
	_, _, err := net.SplitHostPort(value)
	v.check(err == nil, "%s = %q: must be host:port", key, value)
}

// registry checks the address of one. What is wrong with it is said without its text,
// in which there may be a password.
func (v *verdict) registry(key, name string) {
	if !strings.Contains(name, "://") {
		name = "http://" + name
	}
	u, err := url.Parse(name)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		v.check(false, "%s: must be host:port, or a URL of http or https", key)
		return
	}
	v.check(u.User == nil, "%s: user name and password belong under access", key)
}

func (v *verdict) share(key string, value float64) {
	v.check(value >= 0 && value <= 1, "%s = %g: must be from 0 to 1", key, value)
}

func (v *verdict) trace(t Trace) {
	if t.Limit == nil {
		return
	}
	v.oneOf("trace.limit.type", t.Limit.Type, "seconds", "requests")
	v.check(t.Limit.Amount > 0, "trace.limit.amount: must be positive")
}

func (v *verdict) access(key string, a Access, registries []string) {
	v.check(slices.Contains(registries, a.Registry), "%s.registry = %q: is not in the list of registries", key, a.Registry)
	v.check(a.Password == "" || a.PasswordFile == "", "%s: password and password_file: only one of them", key)
	v.check(a.Token == "" || a.TokenFile == "", "%s: token and token_file: only one of them", key)
	v.check(a.Username != "" || a.Password == "" && a.PasswordFile == "", "%s.username: is missing beside the password", key)
	v.check(a.Username == "" || a.Token == "" && a.TokenFile == "", "%s: username and token: only one of them", key)
}

func (v *verdict) warmup(w Warmup) {
	v.check(w.Threads > 0, "warmup.threads: must be positive")
	v.share("warmup.dedupe", w.Dedupe)
	v.share("warmup.verify", w.Verify)
	v.oneOf("warmup.manifests", w.Manifests, "real", "blobs")
}

func (v *verdict) run(r Run) {
	v.check(r.Speed > 0, "run.speed: must be positive")
	v.check(r.Rate >= 0, "run.rate: must not be negative")
	v.check(r.Loop >= 0, "run.loop: must not be negative")
	v.check(r.MaxInFlight > 0, "run.max_inflight: must be positive")
	v.check(r.Timeout > 0, "run.timeout: must be positive")
	v.oneOf("run.pick", r.Pick, "random", "round-robin", "host", "client")
	v.oneOf("run.uploads", r.Uploads, "whole", "parts")
}

func (v *verdict) simulate(s Simulate) {
	for _, name := range s.Policies {
		v.oneOf("simulate.policies", name, append(policy.Names(), simulate.Belady)...)
	}
	v.oneOf("simulate.key", s.Key, "uri", "blob")
	for _, k := range s.Kinds {
		v.oneOf("simulate.kinds", k, "blob", "manifest")
	}
	v.check(s.Curve.Shards >= 0 && s.Curve.Shards < 1, "simulate.curve.shards = %g: must be from 0 to below 1", s.Curve.Shards)
	if s.Prefetch != nil {
		v.oneOf("simulate.prefetch.identity", s.Prefetch.Identity, "layer", "size")
	}
}
