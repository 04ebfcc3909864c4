package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/registry"
)

// session is a registry with one upload session, as the distribution
// specification has it: bytes that arrived before a connection broke count.
type session struct {
	mu       sync.Mutex
	data     []byte
	stored   map[string][]byte
	cuts     []int // how many bytes of each further body are taken before the connection breaks; -1: all
	forgets  bool  // the session goes with a broken connection
	lies     int   // what is added to the Range header
	requests []string
}

func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, strings.TrimSpace(r.Method+" "+r.Header.Get("Content-Range")))
	location := "/session?state=" + strconv.Itoa(len(s.requests))
	switch r.Method {
	case http.MethodHead:
		http.NotFound(w, r)
	case http.MethodPost:
		s.data = nil
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusAccepted)
	case http.MethodGet:
		if s.data == nil {
			http.NotFound(w, r)
			return
		}
		s.answer(w, location, http.StatusNoContent)
	case http.MethodPatch, http.MethodPut:
		if at := r.Header.Get("Content-Range"); at != "" && !strings.HasPrefix(at, fmt.Sprintf("%d-", len(s.data))) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		s.take(r.Body)
		if r.Method == http.MethodPatch {
			s.answer(w, location, http.StatusAccepted)
			return
		}
		want := r.URL.Query().Get("digest")
		if digest.FromBytes(s.data).String() != want {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.stored[want] = s.data
		w.WriteHeader(http.StatusCreated)
	}
}

func (s *session) answer(w http.ResponseWriter, location string, status int) {
	w.Header().Set("Location", location)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(s.data)-1+s.lies)))
	w.WriteHeader(status)
}

// take reads a body, or breaks its connection.
func (s *session) take(body io.Reader) {
	cut := -1
	if len(s.cuts) > 0 {
		cut, s.cuts = s.cuts[0], s.cuts[1:]
	}
	if cut >= 0 {
		body = io.LimitReader(body, int64(cut))
	}
	data, _ := io.ReadAll(body)
	s.data = append(s.data, data...)
	if s.data == nil {
		s.data = []byte{}
	}
	if cut >= 0 {
		if s.forgets {
			s.data = nil
		}
		panic(http.ErrAbortHandler)
	}
}

func TestUploadResumes(t *testing.T) {
	data := pattern(3 << 20)
	for _, c := range []struct {
		name  string
		s     *session
		chunk int64
		want  string
	}{
		{name: "one request", s: &session{}, want: "HEAD, POST, PUT"},
		{name: "chunks", chunk: 1 << 20, s: &session{},
			want: "HEAD, POST, PATCH 0-1048575, PATCH 1048576-2097151, PATCH 2097152-3145727, PUT"},
		{name: "broken request", s: &session{cuts: []int{1_000_000}},
			want: "HEAD, POST, PUT, GET, PATCH 1000000-3145727, PUT"},
		{name: "broken chunk", chunk: 2 << 20, s: &session{cuts: []int{-1, 1000}},
			want: "HEAD, POST, PATCH 0-2097151, PATCH 2097152-3145727, GET, PATCH 2098152-3145727, PUT"},
		{name: "broken more often than there are attempts", s: &session{cuts: []int{1 << 20, 0, 1 << 20, 0, 1000}},
			want: "HEAD, POST, PUT, GET, PATCH 1048576-3145727, GET, PATCH 1048576-3145727, GET, PATCH 2097152-3145727, " +
				"GET, PATCH 2097152-3145727, GET, PATCH 2098152-3145727, PUT"},
		{name: "session is gone", s: &session{cuts: []int{1_000_000}, forgets: true},
			want: "HEAD, POST, PUT, GET, POST, PUT"},
		{name: "nothing arrived", s: &session{cuts: []int{0}},
			want: "HEAD, POST, PUT, GET, PUT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.s.stored = map[string][]byte{}
			client := client(t, registry.Config{UploadChunk: c.chunk})
			host := serve(t, c.s.ServeHTTP)
			if err := client.Push(t.Context(), host+"/app", descriptor(data), bytes.NewReader(data)); err != nil {
				t.Error(err)
			}
			if got := strings.Join(c.s.requests, ", "); got != c.want {
				t.Errorf("requests\n%s, want\n%s", got, c.want)
			}
			if !bytes.Equal(c.s.stored[descriptor(data).Digest.String()], data) {
				t.Error("what was stored is not what was pushed")
			}
		})
	}
}

// A registry that is wrong about what it has costs a second upload, not a wrong
// blob; one that stays away is an error.
func TestUploadFails(t *testing.T) {
	data := pattern(3 << 20)
	lying := session{cuts: []int{1_000_000}, lies: -5, stored: map[string][]byte{}}
	host := serve(t, lying.ServeHTTP)
	if err := client(t, registry.Config{}).Push(t.Context(), host+"/app", descriptor(data), bytes.NewReader(data)); err != nil {
		t.Errorf("%v after %q", err, lying.requests)
	}
	beyond := session{lies: 5, stored: map[string][]byte{}}
	host = serve(t, beyond.ServeHTTP)
	err := client(t, registry.Config{UploadChunk: 1 << 20}).Push(t.Context(), host+"/app", descriptor(data), bytes.NewReader(data))
	if err == nil || !strings.Contains(err.Error(), "the registry has 1048581") {
		t.Errorf("a registry that has more than it got: %v", err)
	}
	dead := session{cuts: make([]int, 100), stored: map[string][]byte{}}
	host = serve(t, dead.ServeHTTP)
	err = client(t, registry.Config{}).Push(t.Context(), host+"/app", descriptor(data), bytes.NewReader(data))
	if err == nil || !strings.Contains(err.Error(), "giving up after 3 attempts") || len(dead.stored) != 0 {
		t.Errorf("a registry that dies each time: %v", err)
	}
	var e *registry.Error
	if !errors.As(err, &e) || e.Host != host {
		t.Errorf("the error does not name the host: %v", err)
	}
}

// A source that can only be read once can be uploaded in chunks, as long as
// nothing breaks.
func TestUploadFromStream(t *testing.T) {
	data := pattern(3 << 20)
	for cuts, part := range map[int]string{-1: "", 100: "can not be read again"} {
		s := session{stored: map[string][]byte{}, cuts: []int{-1, cuts}}
		host := serve(t, s.ServeHTTP)
		c := client(t, registry.Config{UploadChunk: 1 << 20})
		err := c.Push(t.Context(), host+"/app", descriptor(data), io.MultiReader(bytes.NewReader(data)))
		if (err == nil) != (part == "") || err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("%v, want %q", err, part)
		}
	}
}
