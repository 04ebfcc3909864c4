package upstream

import (
	"crypto/x509"
	"net/http"
)

// Client sends requests to registries. All methods may be called concurrently.
type Client struct {
	cfg Config
}

// New returns a Client.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Client{cfg: cfg.withDefaults()}, nil
}

// Do sends a GET or HEAD. Redirects of a HEAD are returned; those of a GET are
// followed. The answer has whatever status, its Request no credentials and no
// query, and its body must be closed. Errors are *Error.
//
// While a registry's Retry-After lasts, the answer to the same credentials is made
// here: the status it came with and what is left of it.
func (c *Client) Do(req *http.Request) (*http.Response, error) { return nil, ErrBusy }

// SetRoots replaces Config.TLS.RootCAs for new connections; nil is the system's.
func (c *Client) SetRoots(roots *x509.CertPool) {}

// Stats returns what was counted.
func (c *Client) Stats() Stats { return Stats{} }

// Close closes idle connections. Requests under way go on.
func (c *Client) Close() error { return nil }
