package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"

	"github.com/reprise-containers/reprise/remote/registry/transport"
)

// hostsFresh is how long a host configuration is used without a look at the
// file.
const hostsFresh = 10 * time.Second

// maxTokenResponse bounds the answer of a token server, in bytes.
const maxTokenResponse = 1 << 20

// endpoint is one host that serves a registry's content: the registry itself or
// a mirror of it. It does not change.
type endpoint struct {
	host, scheme, path string
	origin             string // scheme://host
	ns                 string // to be sent as ?ns=; empty for the registry itself
	last               bool   // no mirror: the registry, or the server configured in its place
	caps               docker.HostCapabilities
	header             http.Header
	agent              string // User-Agent

	data    http.RoundTripper
	foreign http.RoundTripper // the same for other hosts: without client certificates
	tokens  *http.Client

	// streaming is the endpoint with transports for Client.Stream; nil in
	// that one itself.
	streaming *endpoint
}

// trusts reports whether credentials for e may be shown to a token server.
func (e *endpoint) trusts(realm string) bool {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && (e.scheme == "http" || loopback(u.Host))
}

// hosts knows the endpoints of registries.
type hosts struct {
	cfg Config

	mu   sync.Mutex
	sets map[string]*hostSet // by namespace
}

type hostSet struct {
	endpoints []*endpoint
	stamp     string // of the configuration it was made from
	checked   time.Time
}

// endpoints returns the hosts for a namespace in the order in which to try
// them, the registry itself last.
func (h *hosts) endpoints(ctx context.Context, ns string) ([]*endpoint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.sets[ns]
	if old != nil && time.Since(old.checked) < hostsFresh {
		return old.endpoints, nil
	}
	stamp, err := h.stamp(ns)
	if err == nil && old != nil && stamp == old.stamp {
		old.checked = time.Now()
		return old.endpoints, nil
	}
	var made []*endpoint
	if err == nil {
		made, err = h.load(ctx, ns)
	}
	if err != nil {
		err = fmt.Errorf("reading the host configuration of %s: %w", ns, err)
		if old == nil {
			return nil, err
		}
		h.cfg.Logger.Error("keeping the previous host configuration", "error", err)
		old.checked = time.Now()
		return old.endpoints, nil
	}
	if old != nil {
		old.close()
	}
	h.sets[ns] = &hostSet{endpoints: made, stamp: stamp, checked: time.Now()}
	return made, nil
}

// dir returns the directory with the configuration of a namespace, or "".
func (h *hosts) dir(ns string) (string, error) {
	if h.cfg.HostsDir == "" {
		return "", nil
	}
	dir, err := config.HostDirFromRoot(h.cfg.HostsDir)(ns)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	return dir, err
}

// stamp changes when the configuration of a namespace does.
func (h *hosts) stamp(ns string) (string, error) {
	dir, err := h.dir(ns)
	if dir == "" || err != nil {
		return "", err
	}
	stamp := dir
	for _, path := range []string{dir, filepath.Join(dir, "hosts.toml")} {
		st, err := os.Stat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err == nil {
			stamp += fmt.Sprintf(" %d %d", st.Size(), st.ModTime().UnixNano())
		}
	}
	return stamp, nil
}

// load reads the configuration of a namespace.
func (h *hosts) load(ctx context.Context, ns string) ([]*endpoint, error) {
	dir, err := h.dir(ns)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		// containerd logs a file it can't parse and goes on without it,
		// past the mirrors.
		if err := checkTOML(filepath.Join(dir, "hosts.toml")); err != nil {
			return nil, err
		}
	}
	options := config.HostOptions{
		HostDir:      func(string) (string, error) { return dir, nil },
		UpdateClient: h.tuner(h.transport),
	}
	if loopback(ns) || listed(h.cfg.PlainHTTP, ns) {
		options.DefaultScheme = "http"
	}
	options.DefaultTLS = h.cfg.TLS.Clone()
	if listed(h.cfg.Insecure, ns) {
		if options.DefaultTLS == nil {
			options.DefaultTLS = &tls.Config{}
		}
		options.DefaultTLS.InsecureSkipVerify = true
	}
	found, err := config.ConfigureHosts(ctx, options)(ns)
	if err != nil {
		return nil, err
	}
	// Once more, for the connections of streams.
	options.UpdateClient = h.tuner(h.streamTransport)
	streaming, err := config.ConfigureHosts(ctx, options)(ns)
	if err != nil {
		return nil, err
	}
	if len(streaming) != len(found) {
		return nil, fmt.Errorf("%s changes while it is read", dir)
	}
	var made []*endpoint
	for i, f := range found {
		e := h.endpoint(f, ns, h.transport)
		e.streaming = h.endpoint(streaming[i], ns, h.streamTransport)
		e.streaming.tokens = e.tokens
		made = append(made, e)
	}
	if len(made) == 0 {
		return nil, fmt.Errorf("no hosts in %s", dir)
	}
	made[len(made)-1].last = true
	return made, nil
}

func checkTOML(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := toml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("parsing %s: %w", path, err)
	}
	return nil
}

// tuner returns a function that replaces containerd's transport by one for range
// requests. containerd calls it for the client of all hosts, and again for that
// of each host with settings of its own, made from the first: TLS configuration
// and dialer of those are kept.
func (h *hosts) tuner(transport makeTransport) config.UpdateClientFunc {
	first := true
	return func(client *http.Client) error {
		base, ok := client.Transport.(*http.Transport)
		if !ok {
			return fmt.Errorf("unexpected transport %T", client.Transport)
		}
		if first {
			base.DialContext = h.dialer()
			first = false
		}
		client.Transport = transport(base.TLSClientConfig, base.DialContext)
		return nil
	}
}

// makeTransport returns a transport with TLS configuration and dialer of a host.
type makeTransport func(t *tls.Config, dial transport.DialFunc) *http.Transport

func (h *hosts) transport(t *tls.Config, dial transport.DialFunc) *http.Transport {
	return transport.New(transport.Options{
		TLS:                   t,
		Dial:                  dial,
		ConnectTimeout:        h.cfg.ConnectTimeout,
		ResponseHeaderTimeout: h.cfg.ResponseHeaderTimeout,
		MaxConnsPerHost:       h.cfg.MaxConnsPerHost,
	})
}

// dialer returns what makes connections unless a host has its own.
func (h *hosts) dialer() transport.DialFunc {
	if h.cfg.DialContext != nil {
		return h.cfg.DialContext
	}
	return transport.Dialer(h.cfg.ConnectTimeout)
}

func (h *hosts) endpoint(f docker.RegistryHost, ns string, transports makeTransport) *endpoint {
	e := &endpoint{
		host: f.Host, scheme: f.Scheme, path: f.Path, origin: f.Scheme + "://" + f.Host,
		caps: f.Capabilities, header: f.Header, agent: h.cfg.UserAgent,
	}
	if f.Host != ns && (ns != "docker.io" || f.Host != "registry-1.docker.io") {
		e.ns = ns
	}
	e.data = h.decorate(f.Client.Transport)
	e.foreign = e.data
	if own, ok := f.Client.Transport.(*http.Transport); ok && len(own.TLSClientConfig.Certificates) > 0 {
		t := own.TLSClientConfig.Clone()
		t.Certificates = nil
		e.foreign = h.decorate(transports(t, own.DialContext))
	}
	e.tokens = &http.Client{
		Transport:     transport.BodyLimit(e.data, maxTokenResponse),
		CheckRedirect: redirectSafely,
	}
	return e
}

// streamTransport makes one that speaks HTTP/1.1 only, so that a stream has its
// connection for itself.
func (h *hosts) streamTransport(t *tls.Config, dial transport.DialFunc) *http.Transport {
	own := h.transport(t, dial)
	own.ForceAttemptHTTP2, own.HTTP2 = false, nil
	own.Protocols = new(http.Protocols)
	own.Protocols.SetHTTP1(true)
	if own.TLSClientConfig != nil {
		own.TLSClientConfig.NextProtos = nil
	}
	return own
}

func (h *hosts) decorate(rt http.RoundTripper) http.RoundTripper {
	if h.cfg.Decorate != nil {
		rt = h.cfg.Decorate(rt)
	}
	return transport.Stall(rt, h.cfg.IdleTimeout)
}

// close closes the connections of all hosts that are idle.
func (h *hosts) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sets {
		s.close()
	}
}

func (s *hostSet) close() {
	for _, e := range s.endpoints {
		transport.CloseIdle(e.data)
		transport.CloseIdle(e.foreign)
		transport.CloseIdle(e.streaming.data)
		transport.CloseIdle(e.streaming.foreign)
	}
}
