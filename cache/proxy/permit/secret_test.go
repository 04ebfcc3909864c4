package permit_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// TestSecret: it prints as none, in whatever it is and however it is printed.
func TestSecret(t *testing.T) {
	s := permit.Secret("Bearer HIDDEN")
	type holder struct {
		Auth permit.Secret
		P    *permit.Secret
		L    []permit.Secret
		M    map[string]permit.Secret
	}
	h := holder{s, &s, []permit.Secret{s}, map[string]permit.Secret{"a": s}}
	var b bytes.Buffer
	for _, v := range []any{s, &s, h, &h, h.L, h.M, errors.Join(fmt.Errorf("x %v", s))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s", "%T", "%t", "%U"} {
			fmt.Fprintf(&b, verb+"\n", v)
		}
		fmt.Fprint(&b, v)
		fmt.Fprintln(&b, v)
		for _, l := range []slog.Handler{slog.NewJSONHandler(&b, nil), slog.NewTextHandler(&b, nil)} {
			slog.New(l).Info("x", "v", v, slog.Any("w", v))
		}
		text, _ := json.Marshal(v)
		b.Write(text)
		text, _ = xml.Marshal(v)
		b.Write(text)
	}
	hex := fmt.Sprintf("%x", "HIDDEN")
	if out := b.String(); strings.Contains(out, "HIDDEN") || strings.Contains(strings.ToLower(out), hex) ||
		!strings.Contains(out, "[redacted]") {
		t.Error(out)
	}
	if string(s) != "Bearer HIDDEN" || permit.Secret("").String() != "" || fmt.Sprintf("%#v", permit.Secret("")) != `""` {
		t.Error("the secret itself is lost")
	}
}

// TestCheckerHoldsNoSecret: what it keeps is hashes, and with another salt others.
func TestCheckerHoldsNoSecret(t *testing.T) {
	g := &registry{status: 200}
	c := permit.New(long, g.head)
	d := expect(t, c, blobOf("a"), "Bearer HIDDEN", permit.Range, "200")
	for _, out := range []string{fmt.Sprintf("%+v", d), fmt.Sprintf("%#v", c), fmt.Sprintf("%+v", c.Stats())} {
		if strings.Contains(out, "HIDDEN") {
			t.Error(out)
		}
	}
	if one, two := permit.CredentialHash(c, "x"), permit.CredentialHash(permit.New(long, g.head), "x"); one == two {
		t.Error("two processes have the same hash of a credential")
	}
}
