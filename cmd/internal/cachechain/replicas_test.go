package cachechain_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/cachechain"
)

func TestReplicaStatus(t *testing.T) {
	want := cachechain.ReplicaStatus{
		Version: "v1.2.3", Started: time.Date(2026, 11, 27, 1, 2, 3, 0, time.UTC), Requests: 10, Hits: 7,
		Bytes: 1, MaxBytes: 2, Blobs: 3, FromPeer: 4, FromTier: 5, Upstream: 6,
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(text), "{", `{"more":[1],`, 1) // that of a later version
	for _, text := range []string{string(text), newer} {
		if got, err := cachechain.ParseReplicaStatus([]byte(text)); err != nil || got != want {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
	}
}

func TestReplicaStatusThatMakesNoSense(t *testing.T) {
	for _, text := range []string{
		``, `null `, `[]`, `7`, `{`, `{"version":7}`, `{"requests":-1}`, `{"requests":1e3,"hits":1e99}`, `{"requests":1,"hits":2}`,
		`{"bytes":-1}`, `{"maxBytes":-1}`, `{"blobs":-1}`, `{"fromPeer":-1}`, `{"fromTier":-1}`, `{"upstream":-1}`, `{"started":"now"}`,
		`{"started":"0001-01-01T00:00:00Z"}`, `{"version":"` + strings.Repeat("v", 65) + `"}`, `{"version":"v\n1"}`, `{"version":"v\u202e1"}`,
	} {
		if got, err := cachechain.ParseReplicaStatus([]byte(text)); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func FuzzReplicaStatus(f *testing.F) {
	f.Add([]byte(`{"version":"v1","started":"2026-11-27T00:00:00Z","requests":10,"hits":7,"bytes":1,"maxBytes":2,"blobs":3}`))
	f.Add([]byte(`{"started":"2026-11-27T00:00:00Z","requests":18446744073709551615,"hits":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := cachechain.ParseReplicaStatus(text)
		if err != nil {
			return
		}
		if s.Hits > s.Requests || s.Bytes < 0 || s.Blobs < 0 || len(s.Version) > 64 {
			t.Fatalf("%q is %+v", text, s)
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := cachechain.ParseReplicaStatus(again); err != nil || !second.Started.Equal(s.Started) || second.Requests != s.Requests {
			t.Fatalf("%s is %+v, %v, was %+v", again, second, err, s)
		}
	})
}
