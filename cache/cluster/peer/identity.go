package peer

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ErrStranger says that the other side does not know the secret of the cluster.
var ErrStranger = errors.New("it does not know the secret of the cluster")

// keyUse separates the key from others that are derived from the same secret.
const keyUse = "reprise peers v1"

// Identity is what a replica proves that it knows the secret with.
type Identity struct {
	public ed25519.PublicKey
	cert   tls.Certificate
}

// NewIdentity derives the identity of all who know the secret.
func NewIdentity(secret []byte) (*Identity, error) {
	seed, err := hkdf.Key(sha256.New, secret, nil, keyUse, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of peers: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	// Only the key counts, so nothing else is looked at, neither names nor times:
	// clocks of machines differ.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry-cache peer"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate of peers: %w", err)
	}
	return &Identity{public: key.Public().(ed25519.PublicKey), cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, nil
}

// Server returns how a replica serves its peers.
func (i *Identity) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.cert},
		ClientAuth: tls.RequireAnyClientCert, VerifyConnection: i.verify,
		NextProtos: []string{"http/1.1"},
	}
}

// client returns how a replica speaks to its peers.
func (i *Identity) client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.cert},
		InsecureSkipVerify: true, //nolint:gosec // verify looks at the key, which is all that counts
		VerifyConnection:   i.verify,
	}
}

// verify refuses who has shown another key.
func (i *Identity) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return ErrStranger
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || subtle.ConstantTimeCompare(key, i.public) != 1 {
		return ErrStranger
	}
	return nil
}
