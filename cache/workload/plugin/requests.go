package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// collect reads the trace into a list for Starlark.
func collect(ctx context.Context, r trace.Reader) (*requests, error) {
	all := &requests{}
	texts := map[string]string{} // a trace has each URI many times; each is kept once
	once := func(s string) string {
		if t, ok := texts[s]; ok {
			return t
		}
		s = strings.Clone(s) // not with the line that it was read from
		texts[s] = s
		return s
	}
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		q := requestOf(x)
		q.URI, q.Method, q.Client = once(q.URI), once(q.Method), once(q.Client)
		all.list = append(all.list, q)
	}
}

// requests is a list of requests that are made values when they are looked at: a
// dictionary for each would take ten times the memory. It cannot be changed.
type requests struct{ list []Request }

var _ interface {
	starlark.Sliceable
	starlark.Sequence
} = (*requests)(nil)

func (r *requests) String() string             { return fmt.Sprintf("<%d requests>", len(r.list)) }
func (r *requests) Type() string               { return "requests" }
func (r *requests) Freeze()                    {} // it is
func (r *requests) Truth() starlark.Bool       { return len(r.list) > 0 }
func (r *requests) Hash() (uint32, error)      { return 0, errors.New("requests cannot be hashed") }
func (r *requests) Len() int                   { return len(r.list) }
func (r *requests) Index(i int) starlark.Value { return &request{&r.list[i]} }

// Slice implements starlark.Sliceable.
func (r *requests) Slice(start, end, step int) starlark.Value {
	if step == 1 {
		return &requests{r.list[start:end]}
	}
	out := &requests{}
	for i := start; step > 0 && i < end || step < 0 && i > end; i += step {
		out.list = append(out.list, r.list[i])
	}
	return out
}

// Iterate implements starlark.Iterable.
func (r *requests) Iterate() starlark.Iterator { return &requestIterator{r, 0} }

type requestIterator struct {
	r *requests
	i int
}

func (it *requestIterator) Next(p *starlark.Value) bool {
	if it.i == len(it.r.list) {
		return false
	}
	*p = it.r.Index(it.i)
	it.i++
	return true
}

func (it *requestIterator) Done() {}

// request is a value with r["uri"], r.get("uri") and what else of a dictionary does not
// change it, as in Python, and r.uri.
type request struct{ r *Request }

var _ interface {
	starlark.IterableMapping
	starlark.Sequence
	starlark.HasAttrs
	starlark.Comparable
} = (*request)(nil)

// fields are the names of what a request has.
var fields = []string{"delay", "uri", "size", "method", "duration", "client"}

func (r *request) String() string        { return r.dict().String() }
func (r *request) Type() string          { return "request" }
func (r *request) Freeze()               {}
func (r *request) Truth() starlark.Bool  { return true }
func (r *request) Hash() (uint32, error) { return 0, errors.New("a request cannot be hashed") }
func (r *request) Len() int              { return len(fields) }

func (r *request) field(name string) starlark.Value {
	switch name {
	case "delay":
		return starlark.Float(r.r.Delay)
	case "uri":
		return starlark.String(r.r.URI)
	case "size":
		return starlark.MakeInt64(r.r.Size)
	case "method":
		return starlark.String(r.r.Method)
	case "duration":
		return starlark.Float(r.r.Duration)
	case "client":
		return starlark.String(r.r.Client)
	}
	return nil
}

// dict returns a copy that can be changed.
func (r *request) dict() *starlark.Dict {
	d := starlark.NewDict(len(fields))
	for _, name := range fields {
		_ = d.SetKey(starlark.String(name), r.field(name)) // a new dictionary takes all
	}
	return d
}

// Get implements starlark.Mapping.
func (r *request) Get(k starlark.Value) (starlark.Value, bool, error) {
	name, ok := starlark.AsString(k)
	if !ok {
		return nil, false, nil
	}
	v := r.field(name)
	return v, v != nil, nil
}

// Iterate implements starlark.Iterable.
func (r *request) Iterate() starlark.Iterator { return r.dict().Iterate() }

// Items implements starlark.IterableMapping.
func (r *request) Items() []starlark.Tuple { return r.dict().Items() }

// methods are those of a dictionary that do not change it.
var methods = []string{"get", "items", "keys", "values"}

// AttrNames implements starlark.HasAttrs.
func (r *request) AttrNames() []string {
	names := slices.Concat(fields, methods)
	slices.Sort(names)
	return names
}

// Attr implements starlark.HasAttrs.
func (r *request) Attr(name string) (starlark.Value, error) {
	if slices.Contains(methods, name) {
		return r.dict().Attr(name)
	}
	return r.field(name), nil
}

// CompareSameType implements starlark.Comparable.
func (r *request) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	same := *r.r == *y.(*request).r
	switch op {
	case syntax.EQL:
		return same, nil
	case syntax.NEQ:
		return !same, nil
	}
	return false, fmt.Errorf("request %s request is not defined", op)
}
