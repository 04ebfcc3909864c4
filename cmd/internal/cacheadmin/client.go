package cacheadmin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
)

// ErrNotRunning says that no cache runs on a data path.
var ErrNotRunning = errors.New("no registry-cache is running there")

// Client talks to the cache that runs on a data path.
type Client struct {
	dir  string
	http http.Client
}

// NewClient returns a client for the data path dir.
func NewClient(dir string) *Client {
	c := &Client{dir: dir}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var conn net.Conn
			err := within(dir, func(path string) (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, "unix", path)
				return err
			})
			return conn, err
		},
	}
	return c
}

// Stat returns what the cache is and did.
func (c *Client) Stat(ctx context.Context) (s Stat, err error) {
	return s, c.call(ctx, http.MethodGet, "/stat", nil, &s)
}

// Blobs returns what is kept.
func (c *Client) Blobs(ctx context.Context) (b []Blob, err error) {
	return b, c.call(ctx, http.MethodGet, "/blobs", nil, &b)
}

// Collect has garbage collected, and returns what was given up, by reason.
func (c *Client) Collect(ctx context.Context) (report Report, err error) {
	return report, c.call(ctx, http.MethodPost, "/gc", nil, &report)
}

// Purge has content forgotten.
func (c *Client) Purge(ctx context.Context, p Purge) (done Purged, err error) {
	return done, c.call(ctx, http.MethodPost, "/purge", p, &done)
}

// Verify has all content hashed again. progress is called now and then.
func (c *Client) Verify(ctx context.Context, progress func(Progress)) (Report, error) {
	resp, err := c.send(ctx, http.MethodPost, "/verify", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var p Progress
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return nil, errors.New("verifying: the cache ended before it was done")
		case err != nil:
			return nil, fmt.Errorf("verifying: %w", err)
		case p.Error != "":
			return p.Report, errors.New(p.Error)
		case p.Done:
			return p.Report, nil
		}
		progress(p)
	}
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("reading the cache's answer: %w", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://registry-cache"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w", c.dir, ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("asking the cache in %s: %w", c.dir, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return nil, err
	}
	return nil, errors.New(string(bytes.TrimSpace(text)))
}
