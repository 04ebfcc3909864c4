package replayer

import (
	"fmt"
	"os"
	"strings"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
)

// registries returns those of the configuration, with how to get into them.
func (p *Replayer) registries() ([]load.Registry, error) {
	var out []load.Registry
	for _, name := range p.Config.Registry {
		r := load.Registry{Base: base(name)}
		for _, a := range p.Config.Access {
			if a.Registry != name {
				continue
			}
			var err error
			if r, err = access(r, a); err != nil {
				return nil, err
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// base returns the URL of a registry: a name without a scheme is plain http, as in the
// original.
func base(name string) string {
	name = strings.TrimSuffix(name, "/")
	if strings.Contains(name, "://") {
		return name
	}
	return "http://" + name
}

func access(r load.Registry, a replayconfig.Access) (load.Registry, error) {
	var err error
	r.Insecure = a.Insecure
	if r.CA, err = fromFile("", a.CA); err != nil {
		return r, fmt.Errorf("access to %s: %w", a.Registry, err)
	}
	password, err := fromFile(a.Password, a.PasswordFile)
	if err != nil {
		return r, fmt.Errorf("access to %s: %w", a.Registry, err)
	}
	token, err := fromFile(a.Token, a.TokenFile)
	if err != nil {
		return r, fmt.Errorf("access to %s: %w", a.Registry, err)
	}
	r.Auth = load.Auth{Username: a.Username, Password: load.Secret(password), Token: load.Secret(token)}
	return r, nil
}

// fromFile returns value, or what is in the file, without white space around it.
func fromFile(value, path string) (string, error) {
	if path == "" {
		return value, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if value = strings.TrimSpace(string(text)); value == "" {
		return "", fmt.Errorf("there is nothing in %s", path) // not to go on without what was asked for
	}
	return value, nil
}
