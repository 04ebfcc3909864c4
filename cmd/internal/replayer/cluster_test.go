package replayer_test

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/replayer"
)

// A client that cannot be what it is asked to be says why, and does not listen.
func TestClientMistakes(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for want, c := range map[string]replayer.ClientConfig{
		"needs its key":           {CertFile: none},
		"a key its certificate":   {KeyFile: none},
		"reading the certificate": {CertFile: none, KeyFile: none},
		"reading the secret":      {SecretFile: none},
		"secret":                  {Addr: "0.0.0.0:0"},
	} {
		if c.Addr == "" {
			c.Addr = "127.0.0.1:0"
		}
		if err := (&replayer.Replayer{Log: io.Discard}).Serve(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
