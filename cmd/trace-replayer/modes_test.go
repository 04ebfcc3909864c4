package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The configuration may be named before the command, as the original's mode is, or
// behind it.
func TestConfigFlag(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("trace", "v2/a/blobs/x\nv2/a/blobs/x\nv2\n")
	config := write("config.yaml", "trace: {location: "+dir+", traces: [trace]}\nsimulate: {unit: true, policies: [lru], sizes: ['100%']}\n")
	for _, c := range []struct{ args, want string }{
		{"simulate -i " + config, "2 requests of 1 objects"},
		{"-i " + config + " simulate", "2 requests of 1 objects"},
		{"-c simulate -i " + config, "2 requests of 1 objects"},
		{"generate -n 1 -i " + config, `"http.request.uri"`},
		{"-i " + config + " generate -n 1", `"http.request.uri"`},
		{"simulate", "no configuration"},
		{"-c simulate", "no configuration"},
		{"-c replay -i " + config, "unknown mode"},
		{"replay", "unknown command"},
		{"simulate more -i " + config, "takes no arguments"},
		{"-i " + filepath.Join(dir, "none") + " simulate", "no such file"},
	} {
		a := app()
		var out bytes.Buffer
		a.Writer, a.ErrWriter = &out, &bytes.Buffer{}
		text := ""
		if err := a.Run(t.Context(), append([]string{"trace-replayer"}, strings.Fields(c.args)...)); err != nil {
			text = err.Error()
		}
		if text += out.String(); !strings.Contains(text, c.want) {
			t.Errorf("%s: want %q\n%s", c.args, c.want, text)
		}
	}
}
