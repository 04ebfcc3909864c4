package replayconfig

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cmd/internal/verdict"
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
	var v verdict.Verdict
	v.Check(len(c.Trace.Traces) > 0, "trace.traces: %s needs a list of files", m)
	if m == ModeWarmup || m == ModeRun {
		v.Check(len(c.Registry) > 0, "registry: %s needs a list of registries, as host:port", m)
	}
	if m == ModeRun {
		v.Check(c.Run.Loop == 1 || !slices.Contains(c.Trace.Traces, "-"), "run.loop: standard input (trace.traces: -) can be read once only")
	}
	if m == ModeWarmup {
		v.Check(c.Warmup.Output != "", "warmup.output: the file for the interim map is not named")
	}
	return v.Err()
}

// Validate reports every value that cannot work, each with its key.
func (c Config) Validate() error {
	var v verdict.Verdict
	for i, a := range c.ClientInfo.ClientList {
		v.Address(fmt.Sprintf("client_info.client_list[%d]", i), a)
	}
	v.Check(c.ClientInfo.Threads > 0, "client_info.threads: must be positive")
	c.Trace.validate(&v)
	for i, r := range c.Registry {
		checkRegistry(&v, fmt.Sprintf("registry[%d]", i), r)
	}
	for i, a := range c.Access {
		a.validate(&v, fmt.Sprintf("access[%d]", i), c.Registry)
	}
	c.Warmup.validate(&v)
	c.Run.validate(&v)
	v.Check(c.Cluster.Secret == "" || c.Cluster.SecretFile == "", "cluster: secret and secret_file: only one of them")
	v.OneOf("cluster.lost", c.Cluster.Lost, "proceed", "takeover", "stop")
	v.Check(c.Cluster.Heartbeat > 0, "cluster.heartbeat: must be positive")
	c.Simulate.validate(&v)
	v.Check(c.Generate.Requests > 0, "generate.requests: must be positive")
	v.Check(c.Generate.Rate > 0, "generate.rate: must be positive")
	if c.Report.Metrics != "" {
		v.Address("report.metrics", c.Report.Metrics)
	}
	return v.Err()
}

// checkRegistry checks the address of one. What is wrong with it is said without its text,
// in which there may be a password.
func checkRegistry(v *verdict.Verdict, key, name string) {
	if !strings.Contains(name, "://") {
		name = "http://" + name
	}
	u, err := url.Parse(name)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		v.Check(false, "%s: must be host:port, or a URL of http or https", key)
		return
	}
	v.Check(u.User == nil, "%s: user name and password belong under access", key)
}

func checkShare(v *verdict.Verdict, key string, value float64) {
	v.Check(value >= 0 && value <= 1, "%s = %g: must be from 0 to 1", key, value)
}

func (t Trace) validate(v *verdict.Verdict) {
	if t.Limit == nil {
		return
	}
	v.OneOf("trace.limit.type", t.Limit.Type, "seconds", "requests")
	v.Check(t.Limit.Amount > 0, "trace.limit.amount: must be positive")
}

func (a Access) validate(v *verdict.Verdict, key string, registries []string) {
	v.Check(slices.Contains(registries, a.Registry), "%s.registry = %q: is not in the list of registries", key, a.Registry)
	v.Check(a.Password == "" || a.PasswordFile == "", "%s: password and password_file: only one of them", key)
	v.Check(a.Token == "" || a.TokenFile == "", "%s: token and token_file: only one of them", key)
	v.Check(a.Username != "" || a.Password == "" && a.PasswordFile == "", "%s.username: is missing beside the password", key)
	v.Check(a.Username == "" || a.Token == "" && a.TokenFile == "", "%s: username and token: only one of them", key)
}

func (w Warmup) validate(v *verdict.Verdict) {
	v.Check(w.Threads > 0, "warmup.threads: must be positive")
	checkShare(v, "warmup.dedupe", w.Dedupe)
	checkShare(v, "warmup.verify", w.Verify)
	v.OneOf("warmup.manifests", w.Manifests, "real", "blobs")
}

func (r Run) validate(v *verdict.Verdict) {
	v.Check(r.Speed > 0, "run.speed: must be positive")
	v.Check(r.Rate >= 0, "run.rate: must not be negative")
	v.Check(r.Loop >= 0, "run.loop: must not be negative")
	v.Check(r.MaxInFlight > 0, "run.max_inflight: must be positive")
	v.Check(r.Timeout > 0, "run.timeout: must be positive")
	v.OneOf("run.pick", r.Pick, "random", "round-robin", "host", "client")
	v.OneOf("run.uploads", r.Uploads, "whole", "parts")
}

func (s Simulate) validate(v *verdict.Verdict) {
	for _, name := range s.Policies {
		v.OneOf("simulate.policies", name, append(policy.Names(), simulate.Belady)...)
	}
	v.OneOf("simulate.key", s.Key, "uri", "blob")
	for _, k := range s.Kinds {
		v.OneOf("simulate.kinds", k, "blob", "manifest")
	}
	v.Check(s.Curve.Shards >= 0 && s.Curve.Shards < 1, "simulate.curve.shards = %g: must be from 0 to below 1", s.Curve.Shards)
	s.Cluster.validate(v)
	if s.Prefetch != nil {
		v.OneOf("simulate.prefetch.identity", s.Prefetch.Identity, "layer", "size")
	}
}
