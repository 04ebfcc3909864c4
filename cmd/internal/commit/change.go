package commit

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/reprise-containers/reprise/cmd/internal/imagestore"
)

// Change is one instruction for the config of an image, in the words of a
// Dockerfile.
type Change struct {
	instruction string
	list        []string // of those that take one
	key, value  string
}

// ParseChange parses an instruction:
//
//	CMD ["executable", "argument"]     or  CMD command line of the shell
//	ENTRYPOINT ["executable", ...]     or  ENTRYPOINT command line of the shell
//	ENV KEY=VALUE      LABEL KEY=VALUE     VALUE may be in double quotes
//	WORKDIR /path      USER name[:group]
//	EXPOSE 80[/tcp]    VOLUME /path        STOPSIGNAL SIGTERM
func ParseChange(text string) (Change, error) {
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	c := Change{instruction: strings.ToUpper(word), value: strings.TrimSpace(rest)}
	if c.value == "" {
		return c, fmt.Errorf("change %q: an instruction and what it says are needed, such as WORKDIR /srv", text)
	}
	var err error
	switch c.instruction {
	case "CMD", "ENTRYPOINT":
		c.list, err = commandLine(c.value)
	case "ENV", "LABEL":
		err = c.assignment()
	case "EXPOSE":
		err = c.port()
	case "WORKDIR", "VOLUME":
		if !path.IsAbs(c.value) {
			err = fmt.Errorf("%q is no absolute path", c.value)
		}
	case "USER", "STOPSIGNAL":
	default:
		err = fmt.Errorf("instruction %q is not one of CMD, ENTRYPOINT, ENV, LABEL, WORKDIR, USER, EXPOSE, VOLUME and STOPSIGNAL", word)
	}
	if err != nil {
		return c, fmt.Errorf("change %q: %w", text, err)
	}
	return c, nil
}

// commandLine reads a JSON list, or what a shell is to run.
func commandLine(value string) ([]string, error) {
	if !strings.HasPrefix(value, "[") {
		return []string{"/bin/sh", "-c", value}, nil
	}
	list := []string{}
	if err := json.Unmarshal([]byte(value), &list); err != nil {
		return nil, fmt.Errorf("reading the list: %w", err)
	}
	return list, nil
}

// assignment takes KEY=VALUE apart.
func (c *Change) assignment() error {
	key, value, found := strings.Cut(c.value, "=")
	if key == "" || !found || strings.ContainsAny(key, " \t\"") {
		return fmt.Errorf("%q is not KEY=VALUE", c.value)
	}
	if strings.HasPrefix(value, `"`) {
		plain, err := strconv.Unquote(value)
		if err != nil {
			return fmt.Errorf("reading the quoted value %s: %w", value, err)
		}
		value = plain
	}
	c.key, c.value = key, value
	return nil
}

// port completes a port with its protocol.
func (c *Change) port() error {
	number, protocol, found := strings.Cut(c.value, "/")
	if !found {
		protocol = "tcp"
	}
	if n, err := strconv.ParseUint(number, 10, 16); err != nil || n == 0 || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return fmt.Errorf("%q is no port such as 80 or 53/udp", c.value)
	}
	c.value = number + "/" + protocol
	return nil
}

// Apply changes the part of an image's config that is about running it.
func (c Change) Apply(config imagestore.Object) error {
	switch c.instruction {
	case "CMD":
		return config.Set("Cmd", c.list)
	case "ENTRYPOINT":
		return config.Set("Entrypoint", c.list)
	case "ENV":
		return c.setEnv(config)
	case "LABEL":
		return add(config, "Labels", c.key, c.value)
	case "EXPOSE":
		return add(config, "ExposedPorts", c.value, struct{}{})
	case "VOLUME":
		return add(config, "Volumes", c.value, struct{}{})
	case "WORKDIR":
		return config.Set("WorkingDir", path.Clean(c.value))
	case "USER":
		return config.Set("User", c.value)
	}
	return config.Set("StopSignal", c.value)
}

// setEnv sets a variable where it is, or as the last one.
func (c Change) setEnv(config imagestore.Object) error {
	var env []string
	if err := config.Get("Env", &env); err != nil {
		return err
	}
	text := c.key + "=" + c.value
	at := slices.IndexFunc(env, func(s string) bool { return strings.HasPrefix(s, c.key+"=") })
	if at < 0 {
		env = append(env, text)
	} else {
		env[at] = text
	}
	return config.Set("Env", env)
}

// add sets an entry of a map.
func add[V any](config imagestore.Object, name, key string, value V) error {
	entries := map[string]V{}
	if err := config.Get(name, &entries); err != nil {
		return err
	}
	if entries == nil { // null
		entries = map[string]V{}
	}
	entries[key] = value
	return config.Set(name, entries)
}
