package commit_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/commit"
	"github.com/reprise-containers/reprise/cmd/internal/imagestore"
)

// Each instruction, and what becomes of the config.
func TestChanges(t *testing.T) {
	const before = `{"Env":["PATH=/bin","A=0"],"Labels":{"x":"1"},"Healthcheck":{"Test":["NONE"]}}`
	for text, want := range map[string]string{
		`CMD ["a", "b c"]`:    `"Cmd":["a","b c"]`,
		`cmd a "b c"`:         `"Cmd":["/bin/sh","-c","a \"b c\""]`,
		`CMD []`:              `"Cmd":[]`,
		`ENTRYPOINT ["<a>"]`:  `"Entrypoint":["<a>"]`,
		`ENV A=1 2`:           `"Env":["PATH=/bin","A=1 2"]`,
		`ENV B="1 \"2\""`:     `"Env":["PATH=/bin","A=0","B=1 \"2\""]`,
		`ENV B=`:              `"Env":["PATH=/bin","A=0","B="]`,
		`LABEL y=2`:           `"Labels":{"x":"1","y":"2"}`,
		`EXPOSE 80`:           `"ExposedPorts":{"80/tcp":{}}`,
		`EXPOSE 53/udp`:       `"ExposedPorts":{"53/udp":{}}`,
		`VOLUME /data`:        `"Volumes":{"/data":{}}`,
		`WORKDIR /srv//x/`:    `"WorkingDir":"/srv/x"`,
		`USER 1000:1000`:      `"User":"1000:1000"`,
		`STOPSIGNAL  SIGQUIT`: `"StopSignal":"SIGQUIT"`,
	} {
		c, err := commit.ParseChange(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		o, err := imagestore.ParseObject([]byte(before))
		if err == nil {
			err = c.Apply(o)
		}
		if err != nil {
			t.Fatal(err)
		}
		var got, wanted, old map[string]any
		for text, v := range map[string]*map[string]any{before: &old, "{" + want + "}": &wanted} {
			if err := json.Unmarshal([]byte(text), v); err != nil {
				t.Fatal(err)
			}
		}
		for k, v := range old {
			if _, changed := wanted[k]; !changed {
				wanted[k] = v
			}
		}
		encoded, err := imagestore.Encode(o)
		if err == nil {
			err = json.Unmarshal(encoded, &got)
		}
		if err != nil || !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s: %s, %v; want %s and the rest", text, encoded, err, want)
		}
	}
}

func TestBadChanges(t *testing.T) {
	for _, text := range []string{
		"", "CMD", "CMD  ", `CMD ["a"`, `CMD [1]`, "ENV A", "ENV =1", `ENV A="1`, `ENV A B=1`, "EXPOSE x", "EXPOSE 70000", "EXPOSE 0", "EXPOSE 80/xtp",
		"WORKDIR srv", "VOLUME x", "RUN x", "FROM scratch",
	} {
		if c, err := commit.ParseChange(text); err == nil || !strings.Contains(err.Error(), "change ") {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

// What is parsed can be applied to any config, and again makes no difference.
func FuzzChange(f *testing.F) {
	for _, text := range []string{`CMD ["a"]`, `ENV A="b"`, "LABEL x=y", "EXPOSE 1/udp", "VOLUME /x", "USER root"} {
		f.Add(text, `{"Env":["A=1"]}`)
	}
	f.Fuzz(func(t *testing.T, text, config string) {
		c, err := commit.ParseChange(text)
		if err != nil {
			return
		}
		o, err := imagestore.ParseObject([]byte(config))
		if err != nil {
			return
		}
		if err := c.Apply(o); err != nil {
			return // a field of another type
		}
		once, err := imagestore.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(o); err != nil {
			t.Fatal(err)
		}
		if twice, err := imagestore.Encode(o); err != nil || string(twice) != string(once) {
			t.Errorf("%q: %s, then %s, %v", text, once, twice, err)
		}
	})
}
