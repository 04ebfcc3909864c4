package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/cluster"
	"github.com/reprise-containers/reprise/cache/workload/load"
)

// run runs a few items by way of a client.
func run(t *testing.T, more func(*cluster.MasterConfig), clients ...string) error {
	t.Helper()
	n := 0
	_, err := master(t, cluster.Job{}, more, clients...).Run(t.Context(), &items{n: 10}, func(load.Result) { n++ })
	if err == nil && n != 10 {
		t.Errorf("%d of 10 items ended", n)
	}
	return err
}

func paced(c *cluster.ClientConfig) { c.New = newPacer }

// TestPeersThatDoNotMatch has two sides that differ. Nothing is sent, and the client
// that was right is free.
func TestPeersThatDoNotMatch(t *testing.T) {
	leakless(t)
	for name, c := range map[string]struct {
		master func(*cluster.MasterConfig)
		client func(*cluster.ClientConfig)
		want   error
	}{
		"secret":               {func(c *cluster.MasterConfig) { c.Secret = "another" }, nil, cluster.ErrSecret},
		"no secret":            {func(c *cluster.MasterConfig) { c.Secret = "" }, nil, cluster.ErrSecret},
		"secret of the client": {nil, func(c *cluster.ClientConfig) { c.Secret = "" }, cluster.ErrSecret},
		"version":              {func(c *cluster.MasterConfig) { c.Version = "v2" }, nil, cluster.ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			right := client(t, paced)
			odd := client(t, func(cfg *cluster.ClientConfig) {
				paced(cfg)
				if c.client != nil {
					c.client(cfg)
				}
			})
			err := run(t, c.master, right, odd)
			var at *cluster.ClientError
			if !errors.Is(err, c.want) || !errors.As(err, &at) {
				t.Errorf("%v, and not: %v", err, c.want)
			}
			if err := run(t, nil, right); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClientThatCannot has a client that cannot do the job: nothing is sent by the
// others either.
func TestClientThatCannot(t *testing.T) {
	leakless(t)
	good := client(t, paced)
	bad := client(t, func(c *cluster.ClientConfig) {
		c.New = func(load.Config) (load.Runner, error) { return nil, errors.New("no such certificate") }
	})
	got := &results{}
	m := master(t, cluster.Job{}, nil, good, bad)
	_, err := m.Run(t.Context(), &items{n: 10}, got.add)
	if err == nil || !strings.Contains(err.Error(), bad+": preparing the job: no such certificate") || len(got.all) != 0 {
		t.Errorf("%v; %d results", err, len(got.all))
	}
	if err := run(t, nil, good); err != nil {
		t.Error(err)
	}
}

func TestClientThatComesLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	time.AfterFunc(300*time.Millisecond, func() {
		client(t, func(c *cluster.ClientConfig) {
			paced(c)
			c.Listener, c.Addr = nil, addr
		})
	})
	patient := func(c *cluster.MasterConfig) { c.Patience = time.Minute }
	if err := run(t, patient, addr); err != nil {
		t.Error(err)
	}
}

// TestClientsWaitForEachOther has one that comes when the other has waited for longer
// than a master may be silent. Who looks at them meanwhile does no harm.
func TestClientsWaitForEachOther(t *testing.T) {
	leakless(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	m := master(t, cluster.Job{}, func(c *cluster.MasterConfig) {
		c.Patience, c.Heartbeat = time.Minute, 400*time.Millisecond
	}, client(t, paced), addr)
	came := make(chan struct{})
	time.AfterFunc(2*time.Second, func() {
		defer close(came)
		client(t, func(c *cluster.ClientConfig) {
			paced(c)
			c.Listener, c.Addr = nil, addr
		})
	})
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	ended := make(chan error)
	go func() {
		_, err := m.Run(t.Context(), &items{n: 10}, func(load.Result) {})
		ended <- err
	}()
	for {
		select {
		case <-look.C:
			m.Clients()
			continue
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		}
		break
	}
	<-came
}

// strangers are what may listen where a client should.
var strangers = map[string]func(net.Conn){
	"closes":     func(c net.Conn) { c.Close() },
	"is silent":  func(net.Conn) {},
	"plain text": func(c net.Conn) { io.WriteString(c, "220 hello\r\n") },
	"random":     func(c net.Conn) { c.Write(bytes.Repeat([]byte{0x16, 3, 1, 0xff, 0xff}, 1000)) },
}

func TestMasterAmongStrangers(t *testing.T) {
	leakless(t)
	hasty := func(c *cluster.MasterConfig) { c.Patience = time.Second }
	for name, do := range strangers {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var open []net.Conn
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					open = append(open, c)
					do(c)
				}
			}()
			if err := run(t, hasty, l.Addr().String()); err == nil {
				t.Error("a stranger passed for a client")
			}
			l.Close()
			<-done
			for _, c := range open {
				c.Close()
			}
		})
	}
	if err := run(t, hasty, "127.0.0.1:1"); !errors.Is(err, cluster.ErrSilent) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

// web serves HTTP/2 over TLS.
func web(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// answers are what a client may answer with that is none, or a wrong one.
var answers = map[string]string{
	"":                                "waiting for its answer: EOF",
	"hello there":                     "unexpected EOF",
	"hello there\n":                   "a line is no message",
	"{}\n":                            "no place here",
	`{"hello":{"protocol":7}}` + "\n": "different versions",
	`{"hello":{"protocol":1,"version":"v1","nonce":"AAAA"}}` + "\n" + `{"auth":{"code":"AAAA"}}` + "\n": "same secret",
	`{"refused":{"why":"moon","text":"the moon"}}` + "\n":                                               "the moon",
	`{"refused":{"why":"busy","text":"\u001b[2Jgone"}}` + "\n":                                          "?[2Jgone",
	strings.Repeat("x", 1<<20): "too long",
}

func TestMasterAmongWrongAnswers(t *testing.T) {
	leakless(t)
	for answer, want := range answers {
		addr := web(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			go io.Copy(io.Discard, r.Body)
			time.Sleep(50 * time.Millisecond)
			io.WriteString(w, answer)
			http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		})
		if err := run(t, nil, addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, and not: %s", answer, err, want)
		}
	}
	addr := web(t, http.NotFound)
	if err := run(t, nil, addr); err == nil || !strings.Contains(err.Error(), "no client of trace-replayer: 404") {
		t.Error(err)
	}
}

// TestBetween puts one between master and client who passes all lines on. Both ends
// know the secret, and neither may take the other's word for it.
func TestBetween(t *testing.T) {
	leakless(t)
	addr := client(t, paced)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	between := web(t, func(w http.ResponseWriter, r *http.Request) {
		on, err := http.NewRequestWithContext(r.Context(), r.Method, "https://"+addr+r.URL.Path, r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		answer, err := tr.RoundTrip(on)
		if err != nil {
			return
		}
		defer answer.Body.Close()
		control := http.NewResponseController(w)
		w.WriteHeader(answer.StatusCode)
		control.Flush()
		buf := make([]byte, 4096)
		for {
			n, err := answer.Body.Read(buf)
			w.Write(buf[:n])
			control.Flush()
			if err != nil {
				return
			}
		}
	})
	if err := run(t, nil, between); !errors.Is(err, cluster.ErrSecret) {
		t.Error(err)
	}
	if err := run(t, nil, addr); err != nil {
		t.Error(err)
	}
}

// TestClientAmongStrangers has strangers connect to a client, and come one after the
// other, before a master does.
func TestClientAmongStrangers(t *testing.T) {
	leakless(t)
	addr := client(t, paced)
	for _, text := range []string{"", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", strings.Repeat("\x16\x03\x01", 1000)} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() // it stays until the end
		io.WriteString(c, text)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	web := http.Client{Transport: tr}
	if r, err := web.Get("https://" + addr + "/"); err != nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("%v %v", r, err)
	} else {
		r.Body.Close()
	}
	for text, want := range map[string]string{
		"":        "",
		"x\n":     "",
		"{}\n":    "",
		"[1,2]\n": "",
		`{"hello":{"protocol":1,"version":"v1"}}` + "\n" + `{"auth":{"code":""}}` + "\n": `"why":"secret"`,
		`{"hello":{"protocol":1,"version":"v0"}}` + "\n":                                 `"why":"version"`,
		`{"hello":{"protocol":1,"version":"v1"}}` + "\n" + `{"order":{}}` + "\n":         "",
		strings.Repeat("x", 1<<20): "",
	} {
		r, err := web.Post("https://"+addr+cluster.Path, "", strings.NewReader(text))
		if err != nil {
			continue // the stream was reset, which is an answer too
		}
		said, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if !strings.Contains(string(said), want) {
			t.Errorf("%.60q: %q", text, said)
		}
	}
	if err := run(t, nil, addr); err != nil {
		t.Error(err)
	}
}

// TestCertificates has both sides prove themselves by certificates too.
func TestCertificates(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	addr := client(t, func(c *cluster.ClientConfig) {
		paced(c)
		c.TLS = &tls.Config{Certificates: s.TLS.Certificates}
	})
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	with := func(cfg *tls.Config) error {
		return run(t, func(c *cluster.MasterConfig) { c.TLS = cfg }, addr)
	}
	if err := with(&tls.Config{RootCAs: roots}); err != nil { // it is of 127.0.0.1
		t.Error(err)
	}
	if err := with(&tls.Config{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with other roots: %v", err)
	}
}

func TestConfigs(t *testing.T) {
	for want, c := range map[string]cluster.MasterConfig{
		"there are no clients":              {},
		"missing port":                      {Clients: []string{"localhost"}},
		"client localhost:1 is there twice": {Clients: []string{"localhost:1", "localhost:1"}},
		"there is no secret":                {Clients: []string{"192.0.2.1:1"}},
		`loss "x" is not`:                   {Clients: []string{"localhost:1"}, Loss: "x"},
	} {
		if _, err := cluster.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and not: %s", err, want)
		}
	}
	for want, c := range map[string]cluster.ClientConfig{
		"missing port":          {Addr: "localhost"},
		"there is no secret":    {Addr: "0.0.0.0:0"},
		"listening for masters": {Addr: "192.0.2.1:0", Anyone: true},
	} {
		if err := cluster.Serve(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and not: %s", err, want)
		}
	}
}

// FuzzReceive reads streams of bytes as messages.
func FuzzReceive(f *testing.F) {
	for a := range answers {
		f.Add([]byte(a), 4096)
	}
	f.Add([]byte("{\"items\":[{\"seq\":1}]}\n{\"take\":5}\n"), 20)
	f.Fuzz(func(t *testing.T, stream []byte, limit int) {
		n, err := cluster.Receive(stream, limit)
		lines := bytes.Count(stream, []byte("\n"))
		if err == nil || n > lines || err == io.EOF && n != lines {
			t.Errorf("%d messages of %d lines: %v", n, lines, err)
		}
		s := bufio.NewScanner(bytes.NewReader(stream))
		s.Buffer(nil, len(stream)+1)
		for i := 0; i < n && s.Scan(); i++ {
			if !json.Valid(s.Bytes()) {
				t.Errorf("line %d is no JSON: %q", i, s.Bytes())
			}
		}
	})
}

// FuzzHear lets a client that knows the secret say anything: each item is told of at
// most once, and of all if the client is lost.
func FuzzHear(f *testing.F) {
	for _, s := range []string{
		`{"ready":{"window":32}}`, `{"results":[{"seq":0},{"seq":2}]}`, `{"results":[{"seq":1},{"seq":1}]}`,
		`{"results":[{"seq":99}]}`, `{"take":-1}`, `{"take":32}`, `{"time":{"asked":1,"told":2}}`,
		`{"beat":{"sent":3}}`, `{"done":{"stats":{}}}`, `{"done":{"err":"x"}}`, `{"items":[{}]}`, `{"order":{}}`,
	} {
		f.Add([]byte(s + "\n"))
		f.Add([]byte(`{"ready":{"window":32}}` + "\n" + `{"results":[{"seq":0},{"seq":1},{"seq":2}]}` + "\n" + s + "\n"))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		told, err := cluster.Hear(context.Background(), 3, stream)
		if told != 3 {
			t.Errorf("%d of 3 items were told of, error %v", told, err)
		}
	})
}

// BenchmarkItems deals items to clients that send nothing.
func BenchmarkItems(b *testing.B) {
	for _, clients := range []int{1, 2} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			more, _, _ := recorders()
			var addrs []string
			for range clients {
				addrs = append(addrs, client(b, more))
			}
			m := master(b, cluster.Job{Load: load.Config{Closed: true}}, nil, addrs...)
			var first time.Time
			b.ReportAllocs()
			src := &items{n: b.N}
			_, err := m.Run(b.Context(), src, func(load.Result) {
				if first.IsZero() {
					first = time.Now()
				}
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/time.Since(first).Seconds(), "items/s")
		})
	}
}
