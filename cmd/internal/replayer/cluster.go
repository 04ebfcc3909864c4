package replayer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/cluster"
	"github.com/reprise-containers/reprise/cache/workload/load"
)

// master returns what sends by way of clients on other machines.
func (r *run) master() (load.Runner, func(), error) {
	c := r.p.Config
	secret, err := fromFile(c.Cluster.Secret, c.Cluster.SecretFile)
	if err != nil {
		return nil, nil, fmt.Errorf("reading cluster.secret_file: %w", err)
	}
	roots, err := authorities(c.Cluster.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("reading cluster.ca: %w", err)
	}
	m, err := cluster.New(cluster.MasterConfig{
		Clients: c.ClientInfo.ClientList, Secret: load.Secret(secret), Anyone: c.Cluster.Anyone, TLS: roots, Version: r.p.Version,
		Job: cluster.Job{Load: r.sending}, ByClient: c.ClientInfo.Route,
		Heartbeat: c.Cluster.Heartbeat.Std(), StartIn: c.Cluster.StartIn.Std(), Loss: cluster.Loss(c.Cluster.Lost),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("using the clients of client_info.client_list: %w", err)
	}
	return m, func() {}, nil
}

// lookEvery is how often it is looked whether clients are lost.
const lookEvery = time.Second

// withLosses runs work and tells meanwhile of clients that are lost in mid-run, which
// a run may go on without for hours.
func (r *run) withLosses(m *cluster.Master, work func() error) error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		told := map[string]bool{}
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if r.rec.Totals().Requests == 0 {
				continue // it has not begun: why is what it ends with
			}
			for _, c := range m.Clients() {
				if c.State == cluster.Lost && c.Items > 0 && !told[c.Client] {
					told[c.Client] = true
					r.p.logf("client %s is lost: %s", c.Client, c.Err)
				}
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	return work()
}

// wentOn reports whether all that is wrong with a run is that clients were lost.
func wentOn(err error) bool {
	if all, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // its parts are looked at
		for _, e := range all.Unwrap() {
			if !wentOn(e) {
				return false
			}
		}
		return true
	}
	var lost *cluster.ClientError
	return errors.As(err, &lost)
}

var errNoCertificate = errors.New("there is no certificate in it")

// authorities returns the roots in a PEM file, nil without one.
func authorities(path string) (*tls.Config, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %w", path, errNoCertificate)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

var errPair = errors.New("a certificate needs its key, and a key its certificate (--cert, --key)")

// ClientConfig says how a client waits for masters.
type ClientConfig struct {
	Addr              string // host:port
	Secret            string
	SecretFile        string
	Anyone            bool
	CertFile, KeyFile string // PEM; without them a certificate is made up
}

// Serve sends requests for masters until ctx ends.
func (p *Replayer) Serve(ctx context.Context, c ClientConfig) error {
	secret, err := fromFile(c.Secret, c.SecretFile)
	if err != nil {
		return fmt.Errorf("reading the secret: %w", err)
	}
	cfg := cluster.ClientConfig{Addr: c.Addr, Secret: load.Secret(secret), Anyone: c.Anyone, Version: p.Version}
	if p.Log != nil {
		cfg.Log = slog.New(slog.NewTextHandler(p.Log, nil))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errPair
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return fmt.Errorf("reading the certificate: %w", err)
		}
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	return cluster.Serve(ctx, cfg)
}
