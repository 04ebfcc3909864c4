// Package certs keeps a TLS server's certificate, and the authorities it knows,
// up to date with their files: certificates expire, and who renews them should not
// have to restart what uses them.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// Files are what is read. Empty names are none.
type Files struct {
	Cert, Key string // of the server
	ClientCA  string // of authorities that clients' certificates must be of
	Roots     string // of authorities of others, beside the system's
}

// Interval is how often files are looked at. Notifications would not do: of a
// mounted secret the folder's target changes, of a bind mount nothing is said.
const Interval = 10 * time.Second

// Keeper has what was read last without an error.
type Keeper struct {
	files   Files
	onRoots func()
	onError func(error)

	server atomic.Pointer[tls.Config]
	roots  atomic.Pointer[x509.CertPool]
	seen   map[string]stamp // of Run and New only
}

// stamp is what a file that was not changed keeps.
type stamp struct {
	size  int64
	mtime time.Time
	inode uint64
}

// New reads the files. onRoots is told that Roots changed, onError of files that
// became unusable; both may be nil, and are called by Run.
func New(files Files, onRoots func(), onError func(error)) (*Keeper, error) {
	k := &Keeper{files: files, onRoots: onRoots, onError: onError}
	k.seen = k.stamps()
	return k, k.read()
}

// Server returns the configuration of a server, nil if there is no certificate for
// one. It stays up to date.
func (k *Keeper) Server() *tls.Config {
	if k.server.Load() == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return k.server.Load(), nil
		},
	}
}

// Roots returns the authorities, nil for those of the system.
func (k *Keeper) Roots() *x509.CertPool { return k.roots.Load() }

// Run looks at the files until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	t := time.NewTicker(Interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			k.look()
		}
	}
}

// look reads the files again if one has changed. If they can not be used, as in
// the middle of being replaced, what was read before stays, and they are looked at
// again the next time.
func (k *Keeper) look() {
	now := k.stamps()
	if equal(now, k.seen) {
		return
	}
	if err := k.read(); err != nil {
		if k.onError != nil {
			k.onError(err)
		}
		return
	}
	k.seen = now
	if k.onRoots != nil && k.files.Roots != "" {
		k.onRoots()
	}
}

func equal(a, b map[string]stamp) bool {
	for name, s := range a {
		if b[name] != s {
			return false
		}
	}
	return true
}

func (k *Keeper) stamps() map[string]stamp {
	out := make(map[string]stamp)
	for _, name := range []string{k.files.Cert, k.files.Key, k.files.ClientCA, k.files.Roots} {
		if st, err := os.Stat(name); name != "" && err == nil {
			out[name] = stamp{st.Size(), st.ModTime(), inode(st)}
		}
	}
	return out
}

// read reads all files and then takes them over.
func (k *Keeper) read() error {
	var server *tls.Config
	if k.files.Cert != "" {
		pair, err := tls.LoadX509KeyPair(k.files.Cert, k.files.Key)
		if err != nil {
			return fmt.Errorf("reading the server's certificate: %w", err)
		}
		server = &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{pair},
		}
	}
	if k.files.ClientCA != "" && server != nil {
		pool := x509.NewCertPool()
		if err := add(pool, k.files.ClientCA); err != nil {
			return fmt.Errorf("reading the authorities of clients: %w", err)
		}
		server.ClientCAs, server.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	roots, err := Authorities(k.files.Roots)
	if err != nil {
		return fmt.Errorf("reading the authorities of upstreams: %w", err)
	}
	k.server.Store(server)
	k.roots.Store(roots)
	return nil
}

// Authorities returns the system's authorities and those of a PEM file beside them; nil,
// which is the system's, if none is named.
func Authorities(name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	return pool, add(pool, name)
}

func add(pool *x509.CertPool, name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(text) {
		return errors.New(name + " has no certificate in it")
	}
	return nil
}
