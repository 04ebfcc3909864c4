package upstream_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// printed is what becomes of a value in all the ways it may get into a log.
func printed(v any) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%v %+v %#v %s %q", v, v, v, v, v)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
	text, _ := json.Marshal(v)
	b.Write(text)
	return b.String()
}

// TestNothingSecretIsPrinted: neither errors nor what is observed and counted hold
// the query of a URL or a credential, whatever goes wrong.
func TestNothingSecretIsPrinted(t *testing.T) {
	var mu sync.Mutex
	var seen []upstream.Observation
	away := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cut":
			w.Header().Set("Content-Length", "100")
			panic(http.ErrAbortHandler)
		case "/half":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/hang":
			<-r.Context().Done()
		case "/circle":
			http.Redirect(w, r, "/circle?sig=SECRET", http.StatusTemporaryRedirect)
		}
	})
	broken := rawServer(t, "what https://x.example/?sig=SECRET Bearer SECRETTOKEN\r\n\r\n")
	var to string
	home := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(307)
	})
	c := client(t, upstream.Config{
		Timeout: 100 * time.Millisecond, Resolver: names(t, nil),
		Observe: func(o upstream.Observation) { mu.Lock(); seen = append(seen, o); mu.Unlock() },
	})
	for _, next := range []string{
		away + "/cut?sig=SECRET", away + "/half?sig=SECRET", away + "/hang?sig=SECRET", away + "/circle?sig=SECRET",
		broken + "/?sig=SECRET", "http://127.0.0.1:1/?sig=SECRET", "http://127.0.0.2/?sig=SECRET",
		"http://unknown.example/?sig=SECRET", "http://me:SECRET@127.0.0.1:1/", "https://127.0.0.1:99999/?sig=SECRET",
		"ftp://x.example/?sig=SECRET", "http://[::1?sig=SECRET", "http://127.0.0.1:1/#SECRET",
		strings.Replace(away, "http:", "https:", 1) + "/?sig=SECRET",
	} {
		to = next
		resp, _, err := do(t, c, "GET", home+"/v2/a/blobs/b?sig=SECRET", "Bearer SECRETTOKEN")
		if err == nil {
			t.Errorf("%s: no error", next)
			continue
		}
		if text := printed(err); strings.Contains(text, "SECRET") {
			t.Errorf("%s, printed: %s", next, text)
		}
		if resp != nil && strings.Contains(printed(resp.Request), "SECRET") {
			t.Errorf("%s: request %s", next, printed(resp.Request))
		}
	}
	if text := printed(c.Stats()) + printed(seen) + printed(c); strings.Contains(text, "SECRET") || len(seen) == 0 {
		t.Errorf("observed: %s", text)
	}
}

// rawServer answers every connection with the same bytes.
func rawServer(t *testing.T, answer string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				conn.Read(make([]byte, 4096))
				io.WriteString(conn, answer)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nothing to hide":                            "nothing to hide",
		"see https://x.example/a?sig=SECRET now":     "see https://x.example/a?[redacted] now",
		"see https://me:SECRET@x.example/a":          "see ?[redacted]x.example/a",
		"Authorization: Bearer SECRET.a-b_c=":        "Authorization: Bearer?[redacted]",
		"Authorization: basic U0VDUkVU":              "Authorization: basic?[redacted]",
		`HTTPS://x.example/a?b=SECRET&c=https://y?z`: "HTTPS://x.example/a?[redacted]",
	} {
		if got := upstream.Redact(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
