package route

import "errors"

var (
	// ErrUnknown is in the chain of the error for a registry that is not
	// configured: HTTP status 404.
	ErrUnknown = errors.New("registry is not configured")
	// ErrBadHost is in the chain of the error for what is no name of a host, or
	// would lead to none: HTTP status 400.
	ErrBadHost = errors.New("not a host name")
)

// Table finds the upstream of a request. It does not change.
type Table struct{}

// New returns a Table, or says what is wrong with the configuration.
func New(cfg Config) (*Table, error) { return &Table{}, nil }

// Resolve returns the upstream for a request's Host and ns parameter; ns, if not
// empty, decides alone.
func (t *Table) Resolve(host, ns string) (Target, error) { return Target{}, ErrUnknown }

// Warnings says what in the configuration is likely to be a mistake.
func (t *Table) Warnings() []string { return nil }
