package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// The roles of those who prove that they know the secret.
const (
	roleMaster = "master"
	roleClient = "client"
)

// rounds make guesses of the secret costly for one who was told a code.
const rounds = 1 << 16

// keyOf returns the key that a secret stands for.
func keyOf(secret load.Secret) ([]byte, error) {
	key, err := pbkdf2.Key(sha256.New, string(secret), []byte("reprise trace-replayer"), rounds, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("making a key of the secret: %w", err)
	}
	return key, nil
}

// newNonce returns what makes the codes of a stream its own.
func newNonce() []byte {
	b := make([]byte, 32)
	rand.Read(b) //nolint:errcheck // it does not fail
	return b
}

// prover makes the codes of a stream.
type prover struct {
	key     []byte
	channel []byte // what only the two ends of the connection know (RFC 5705)
}

func newProver(key []byte, state *tls.ConnectionState) (prover, error) {
	if state == nil {
		return prover{}, errors.New("the connection is not encrypted")
	}
	channel, err := state.ExportKeyingMaterial("EXPORTER-reprise-trace-replayer", nil, sha256.Size)
	if err != nil {
		return prover{}, fmt.Errorf("taking keying material of the connection: %w", err)
	}
	return prover{key, channel}, nil
}

// code returns what proves a role, given the nonces of both.
func (p prover) code(role string, master, client []byte) []byte {
	h := hmac.New(sha256.New, p.key)
	for _, part := range [][]byte{[]byte(role), p.channel, master, client} {
		h.Write([]byte{byte(len(part) >> 8), byte(len(part))})
		h.Write(part)
	}
	return h.Sum(nil)
}

// momentary returns a certificate for this process, for which nothing vouches.
func momentary() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "trace-replayer"},
		NotBefore:    now.AddDate(-1, 0, 0), // nobody looks, and clocks differ
		NotAfter:     now.AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// serverTLS returns how a client listens.
func serverTLS(cfg *tls.Config) (*tls.Config, error) {
	if cfg != nil {
		cfg = cfg.Clone()
	} else {
		cert, err := momentary()
		if err != nil {
			return nil, err
		}
		cfg = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	cfg.MinVersion = tls.VersionTLS13 // what it exports is of one connection alone
	return cfg, nil
}

// masterTLS returns how a master connects.
func masterTLS(cfg *tls.Config) *tls.Config {
	if cfg != nil {
		cfg = cfg.Clone()
	} else {
		cfg = &tls.Config{InsecureSkipVerify: true} // the codes say who it is
	}
	cfg.MinVersion = tls.VersionTLS13
	return cfg
}
