package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.starlark.net/lib/json"
	"go.starlark.net/lib/math"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// options are the parts of the language that make it look like Python.
var options = &syntax.FileOptions{Set: true, While: true, TopLevelControl: true, GlobalReassign: true, Recursion: true}

func runStarlark(ctx context.Context, path string, r trace.Reader, args map[string]any, out io.Writer) error {
	var printing error
	thread := &starlark.Thread{Name: path, Print: func(_ *starlark.Thread, text string) {
		if _, err := fmt.Fprintln(out, text); err != nil && printing == nil {
			printing = err
		}
	}}
	stop := context.AfterFunc(ctx, func() { thread.Cancel(context.Cause(ctx).Error()) })
	defer stop()
	globals, err := starlark.ExecFileOptions(options, thread, path, nil, starlark.StringDict{
		"json": json.Module, "math": math.Module, "struct": starlark.NewBuiltin("struct", starlarkstruct.Make),
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
	return printing
}

// starlarkError says where in the plugin an error was.
func starlarkError(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*starlark.EvalError](err); ok {
		return fmt.Errorf("the plugin %s failed: %s", path, shortened(e.Backtrace()))
	}
	return fmt.Errorf("the plugin %s failed: %w", path, err)
}

// ends is how many lines of a long backtrace are said of its beginning and its end.
const ends = 10

// shortened leaves out the middle of a long text: a function that calls itself too
// often has a hundred thousand lines of backtrace.
func shortened(text string) string {
	lines := strings.Split(text, "\n")
	n := len(lines) - 2*ends
	if n <= 1 {
		return text
	}
	lines = slices.Replace(lines, ends, ends+n, fmt.Sprintf("  ... %d lines more", n))
	return strings.Join(lines, "\n")
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
	case string:
		return starlark.String(v), nil
	case []any:
		var list []starlark.Value
		for _, x := range v {
			e, err := value(x)
			if err != nil {
				return nil, err
			}
			list = append(list, e)
		}
		return starlark.NewList(list), nil
	case map[string]any:
		d := starlark.NewDict(len(v))
		for k, x := range v {
			e, err := value(x)
			if err != nil {
				return nil, err
			}
			if err := d.SetKey(starlark.String(k), e); err != nil {
				return nil, err
			}
		}
		return d, nil
	}
	return nil, fmt.Errorf("%v is a %T, which has no form in Starlark", v, v)
}
