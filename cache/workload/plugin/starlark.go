package plugin

import (
	"bytes"
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"slices"
	"strings"

	"go.starlark.net/lib/json"
	"go.starlark.net/lib/math"
	stime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// options are the parts of the language that make it look like Python.
var options = &syntax.FileOptions{Set: true, While: true, TopLevelControl: true, GlobalReassign: true, Recursion: true}

// clockless is the module time without what asks for the time that it is: what is
// simulated of a trace is always the same.
var clockless = func() *starlarkstruct.Module {
	m := &starlarkstruct.Module{Name: "time", Members: starlark.StringDict{}}
	for name, v := range stime.Module.Members {
		if name != "now" {
			m.Members[name] = v
		}
	}
	m.Freeze()
	return m
}()

func runStarlark(ctx context.Context, path string, r trace.Reader, args map[string]any, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	thread := &starlark.Thread{Name: path, Print: func(_ *starlark.Thread, text string) {
		if _, err := fmt.Fprintln(out, text); err != nil {
			cancel(fmt.Errorf("printing what the plugin says: %w", err))
		}
	}}
	stop := context.AfterFunc(ctx, func() { thread.Cancel(context.Cause(ctx).Error()) })
	defer stop()
	globals, err := starlark.ExecFileOptions(options, thread, path, nil, starlark.StringDict{
		"json": json.Module, "math": math.Module, "time": clockless, "struct": starlark.NewBuiltin("struct", starlarkstruct.Make),
	})
	if err != nil {
		return starlarkError(ctx, path, err)
	}
	init, ok := globals["init"].(starlark.Callable)
	if !ok {
		return fmt.Errorf("the plugin %s has no function init(requests) or init(requests, args)", path)
	}
	all, err := collect(ctx, r)
	if err != nil {
		return err
	}
	given := starlark.Tuple{all}
	if args != nil {
		v, err := value(args)
		if err != nil {
			return fmt.Errorf("running %s: its args: %w", path, err)
		}
		given = append(given, v)
	}
	if _, err := starlark.Call(thread, init, given, nil); err != nil {
		return starlarkError(ctx, path, err)
	}
	return context.Cause(ctx)
}

// mostLines is how many lines a backtrace may have.
const mostLines = 40

// starlarkError says where in the plugin an error was.
func starlarkError(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*starlark.EvalError](err); ok {
		trace := e.Backtrace()
		if lines := strings.Split(trace, "\n"); len(lines) > mostLines { // endless recursion
			trace = strings.Join(slices.Concat(lines[:mostLines/2], []string{"  ..."}, lines[len(lines)-mostLines/2:]), "\n")
		}
		return fmt.Errorf("the plugin %s failed: %s", path, trace)
	}
	return fmt.Errorf("the plugin %s failed: %w", path, err)
}

// value returns what a configuration says as Starlark has it.
func value(v any) (starlark.Value, error) {
	switch v := v.(type) {
	case nil:
		return starlark.None, nil
	case bool:
		return starlark.Bool(v), nil
	case int:
		return starlark.MakeInt(v), nil
	case int64:
		return starlark.MakeInt64(v), nil
	case uint64:
		return starlark.MakeUint64(v), nil
	case float64:
		return starlark.Float(v), nil
	case stdjson.Number:
		if n, ok := new(big.Int).SetString(string(v), 10); ok {
			return starlark.MakeBigInt(n), nil
		}
		f, err := v.Float64()
		return starlark.Float(f), err
	case string:
		return starlark.String(v), nil
	case []any:
		return list(v)
	case map[string]any:
		return dictionary(v)
	}
	return plain(v)
}

func list(all []any) (starlark.Value, error) {
	out := make([]starlark.Value, len(all))
	for i, x := range all {
		var err error
		if out[i], err = value(x); err != nil {
			return nil, err
		}
	}
	return starlark.NewList(out), nil
}

func dictionary(all map[string]any) (starlark.Value, error) {
	d := starlark.NewDict(len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) { // as in Python; a map has no order
		e, err := value(all[k])
		if err != nil {
			return nil, err
		}
		if err := d.SetKey(starlark.String(k), e); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// plain returns what has no type of Starlark as what its JSON is, as Python is given it.
func plain(v any) (starlark.Value, error) {
	text, err := stdjson.Marshal(v)
	if err != nil {
		return nil, err
	}
	var parsed any
	d := stdjson.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&parsed); err != nil {
		return nil, err
	}
	return value(parsed)
}
