package route

// Target is an upstream registry.
type Target struct {
	// Scheme is "https" (default) or "http".
	Scheme string
	// Host is in lower case, with the port if that is not the scheme's.
	Host string
}

// String returns the URL of the upstream.
func (t Target) String() string { return t.Scheme + "://" + t.Host }

// Rule leads requests whose Host, with port, matches Regex as a whole to Host.
type Rule struct {
	Regex string
	// Host may refer to groups of Regex: $group1, ${group1}, $1, ${1}, $name,
	// ${name}. The first two are the group of that name, if there is one, else
	// of that number.
	Host   string
	Scheme string // default "https"
}

// Config is what upstreams there are.
type Config struct {
	// Rules are tried in their order.
	Rules []Rule
	// Registries are upstreams by the name that clients give in ns, or as
	// Host if no rule matches. A Target without Host is the name itself; that
	// of docker.io is registry-1.docker.io.
	Registries map[string]Target
	// Default is where requests go that name no registry and match no rule; nil
	// refuses them. It is also found by ns, under its own name.
	Default *Target
}
