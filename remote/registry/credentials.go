package registry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	orasauth "oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// credentialTimeout bounds a credential helper, which may ask a keyring or a
// cloud.
const credentialTimeout = 30 * time.Second

// credential is what a registry, or its token server, gets to see.
type credential struct {
	user, secret string // secret without user: an identity token
	token        string // sent to the registry as it is
}

// credential returns what is configured now for a repository of a host.
func (c Config) credential(ctx context.Context, host, repo string) (credential, error) {
	if c.Credentials != nil {
		user, secret, err := c.Credentials(host)
		if err != nil {
			return credential{}, fmt.Errorf("reading credentials for %s: %w", host, err)
		}
		return credential{user: user, secret: secret}, nil
	}
	path := c.dockerConfig()
	if path == "" {
		return credential{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, credentialTimeout)
	defer cancel()
	found, err := lookup(ctx, path, host, repo)
	if err != nil {
		return credential{}, fmt.Errorf("reading credentials for %s by %s: %w", host, path, err)
	}
	if found.RefreshToken != "" {
		return credential{secret: found.RefreshToken}, nil
	}
	return credential{user: found.Username, secret: found.Password, token: found.AccessToken}, nil
}

func (c Config) dockerConfig() string {
	if c.DockerConfig != "" {
		return c.DockerConfig
	}
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "" // a service without a home has no such file
		}
		dir = filepath.Join(home, ".docker")
	}
	return filepath.Join(dir, "config.json")
}

// lookup asks the file for the repository's own entry, then what the file or
// its helpers know about the host.
func lookup(ctx context.Context, path, host, repo string) (orasauth.Credential, error) {
	file, err := credentials.NewFileStore(path)
	if err != nil {
		return orasauth.EmptyCredential, err
	}
	for prefix := repo; prefix != "."; prefix = parent(prefix) {
		if c, err := file.Get(ctx, host+"/"+prefix); err != nil || c != orasauth.EmptyCredential {
			return c, err
		}
	}
	store, err := credentials.NewStore(path, credentials.StoreOptions{})
	if err != nil {
		return orasauth.EmptyCredential, err
	}
	for _, key := range hostKeys(host) {
		if c, err := store.Get(ctx, key); err != nil || c != orasauth.EmptyCredential {
			return c, err
		}
	}
	return orasauth.EmptyCredential, nil
}

func parent(repo string) string {
	i := strings.LastIndexByte(repo, '/')
	if i < 0 {
		return "."
	}
	return repo[:i]
}

// hostKeys returns the keys under which the credentials of a host may be: for
// Docker Hub, docker's own and those a user might think of.
func hostKeys(host string) []string {
	if host != "registry-1.docker.io" {
		return []string{host}
	}
	return []string{credentials.ServerAddressFromHostname(host), host, "docker.io"}
}
