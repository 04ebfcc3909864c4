package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// script is the state of one test file. Its commands:
//
//	repo NAME [readers=(a,b)] [redirect] [filters] [at=other]   makes a repository
//	blob NAME repo=R [size=N] [at=other]           adds a blob, random or the input
//	manifest NAME repo=R [tag=T] type=T            adds the input as a manifest
//	referrers SUBJECT repo=R                       sets the list of its referrers
//	tags repo=R TAG...                             sets the list of tags
//	fault [method=M] [path=P] [count=N] ...        orders a fault; the input is a body
//	proxy [policy=P] [memory=N] [max-manifest=N]   starts the proxy; again: restarts it
//	get|head|post PATH [as=USER] [ns]              sends a request, with the input as headers
//	corrupt NAME                                   flips a bit of a blob on disk
//	records                                        prints what the observer was told
//
// {NAME} is the digest of a blob or manifest. A request prints what the upstream
// was asked, then the answer.
type script struct {
	rig   *rig
	regs  map[string]*registry
	names map[string]string // digest -> name
	data  map[string][]byte // name -> content
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := &script{
			regs:  map[string]*registry{"": newRegistry(t), "other": newRegistry(t)},
			names: make(map[string]string), data: make(map[string][]byte),
		}
		s.rig = newRig(t, s.regs[""], s.regs["other"])
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return s.run(t, d)
		})
	})
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var at, name string
	d.MaybeScanArgs(t, "at", &at)
	d.MaybeScanArgs(t, "repo", &name)
	g := s.regs[at]
	switch d.Cmd {
	case "repo":
		r := g.repo(d.CmdArgs[0].Key)
		r.redirect, r.filters = d.HasArg("redirect"), d.HasArg("filters")
		for _, a := range d.CmdArgs {
			if a.Key == "readers" {
				r.readers = a.Vals
			}
		}
	case "blob":
		s.addBlob(t, d, g, name)
	case "manifest":
		var tag, mediaType string
		d.MaybeScanArgs(t, "tag", &tag)
		d.ScanArgs(t, "type", &mediaType)
		mediaType = map[string]string{"image": ociManifest, "index": ociIndex}[mediaType]
		text := s.expand(d.Input)
		s.name(d.CmdArgs[0].Key, g.addManifest(name, tag, mediaType, []byte(text)).String(), []byte(text))
	case "referrers":
		g.repo(name).referrers[s.digest(d.CmdArgs[0].Key)] = s.expand(d.Input)
	case "tags":
		for _, a := range d.CmdArgs[1:] {
			g.repo(name).tags = append(g.repo(name).tags, a.Key)
		}
	case "fault":
		g.order(s.fault(t, d))
	case "proxy":
		s.proxy(t, d)
	case "get", "head", "post", "put", "delete":
		return s.request(t, d)
	case "records":
		return s.recorded(t, d)
	case "corrupt":
		s.corrupt(t, s.data[d.CmdArgs[0].Key])
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	return ""
}

func (s *script) addBlob(t *testing.T, d *datadriven.TestData, g *registry, repo string) {
	size := 0
	d.MaybeScanArgs(t, "size", &size)
	name := d.CmdArgs[0].Key
	data := s.data[name]
	switch {
	case data != nil: // the same in another repository
	case d.Input != "":
		data = []byte(d.Input)
	default:
		data = cachetest.Random(size, uint64(len(s.data)))
	}
	s.name(name, g.addBlob(repo, data).String(), data)
}

func (s *script) name(name, digest string, data []byte) {
	s.names[digest], s.data[name] = name, data
}

func (s *script) fault(t *testing.T, d *datadriven.TestData) *fault {
	f := &fault{count: 1, body: d.Input, whole: d.HasArg("whole"), header: make(http.Header)}
	var replace, header string
	d.MaybeScanArgs(t, "method", &f.method)
	d.MaybeScanArgs(t, "path", &f.path)
	d.MaybeScanArgs(t, "count", &f.count)
	d.MaybeScanArgs(t, "status", &f.status)
	d.MaybeScanArgs(t, "cut", &f.cut)
	d.MaybeScanArgs(t, "size", &f.size)
	d.MaybeScanArgs(t, "digest", &f.digest)
	d.MaybeScanArgs(t, "type", &f.contentType)
	d.MaybeScanArgs(t, "replace", &replace)
	d.MaybeScanArgs(t, "header", &header)
	f.path, f.digest = s.expand(f.path), s.expand(f.digest)
	if replace != "" {
		f.replace = s.data[replace]
	}
	if name, value, ok := strings.Cut(header, ":"); ok {
		f.header.Set(name, value)
	}
	return f
}

func (s *script) proxy(t *testing.T, d *datadriven.TestData) {
	if s.rig.stop != nil {
		s.rig.stop()
	}
	var policy string
	d.MaybeScanArgs(t, "policy", &policy)
	if policy != "" {
		p, err := permit.ParsePolicy(policy)
		if err != nil {
			t.Fatal(err)
		}
		s.rig.permit.Policy = p
	}
	d.MaybeScanArgs(t, "memory", &s.rig.cfg.MemoryBytes)
	d.MaybeScanArgs(t, "max-manifest", &s.rig.cfg.MaxManifest)
	s.rig.start(t)
}

// corrupt stops the proxy and flips a bit of the file that has the data.
func (s *script) corrupt(t *testing.T, data []byte) {
	s.rig.stop()
	found := false
	err := filepath.WalkDir(filepath.Join(s.rig.dir, "content"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, data) {
			return err
		}
		found = true
		got[len(got)/2] ^= 1
		return os.WriteFile(path, got, 0o600)
	})
	if err != nil || !found {
		t.Fatal("there is no file to corrupt", err)
	}
}

// expand puts digests in for {NAME}.
func (s *script) expand(text string) string {
	for digest, name := range s.names {
		text = strings.ReplaceAll(text, "{"+name+"}", digest)
	}
	return text
}

func (s *script) digest(name string) digest.Digest {
	for sum, n := range s.names {
		if n == name {
			return digest.Digest(sum)
		}
	}
	return ""
}

// plain is the reverse of expand, and has names for hosts.
func (s *script) plain(text string) string {
	for digest, name := range s.names {
		text = strings.ReplaceAll(text, digest, "{"+name+"}")
	}
	for name, g := range s.regs {
		text = strings.ReplaceAll(text, g.host(), "UPSTREAM"+strings.ToUpper(name))
		text = strings.ReplaceAll(text, strings.TrimPrefix(g.store.URL, "http://"), "STORE"+strings.ToUpper(name))
	}
	return text
}

func (s *script) request(t *testing.T, d *datadriven.TestData) string {
	var user string
	d.MaybeScanArgs(t, "as", &user)
	path := s.expand(d.CmdArgs[0].String())
	if d.HasArg("ns") {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "ns=" + s.regs["other"].host()
	}
	req := s.rig.request(t, strings.ToUpper(d.Cmd), path, user)
	for line := range strings.SplitSeq(d.Input, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			req.Header.Add(name, s.expand(value))
		}
	}
	resp, err := s.rig.client.Do(req)
	if err != nil {
		return s.upstream() + "no answer\n"
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var out strings.Builder
	out.WriteString(s.upstream())
	fmt.Fprintf(&out, "%s\n", resp.Status)
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		if name == "Date" || name == "Docker-Distribution-Api-Version" || name == "X-Content-Type-Options" {
			continue
		}
		fmt.Fprintf(&out, "%s: %s\n", name, s.plain(strings.Join(resp.Header[name], ", ")))
	}
	if d.Cmd != "head" || len(body) > 0 {
		out.WriteString(s.describe(body))
	}
	if err != nil {
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%s: %v", path, err)
		}
		out.WriteString("cut off\n")
	}
	return out.String()
}

// describe says what a body is.
func (s *script) describe(body []byte) string {
	if len(body) == 0 {
		return "no body\n"
	}
	for _, name := range slices.Sorted(maps.Keys(s.data)) {
		data := s.data[name]
		switch at := bytes.Index(data, body); {
		case at < 0:
		case len(body) == len(data):
			return "all of " + name + "\n"
		default:
			return fmt.Sprintf("%s[%d,%d)\n", name, at, at+len(body))
		}
	}
	text := s.plain(string(body))
	if len(text) > 1000 {
		return "other bytes: " + strconv.Itoa(len(text)) + "\n"
	}
	return strings.TrimSuffix(text, "\n") + "\n"
}

// upstream lists what the upstreams were asked.
func (s *script) upstream() string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.regs)) {
		for _, e := range s.regs[name].requests() {
			fmt.Fprintf(&out, "-> %s%s %s", name, e.method, s.plain(e.uri))
			for _, v := range []string{e.note, e.auth, e.rng} {
				if v != "" {
					out.WriteString(" " + v)
				}
			}
			out.WriteString("\n")
		}
	}
	return strings.ReplaceAll(out.String(), secretQuery, "SECRET")
}

func (s *script) recorded(t *testing.T, d *datadriven.TestData) string {
	n := 0
	d.ScanArgs(t, "n", &n)
	var out strings.Builder
	for _, r := range s.rig.observed(t, n) {
		fmt.Fprintf(&out, "%s %s %s %s %d %d %s", r.Method, r.Kind, r.Repo, s.plain(r.Reference), r.Status, r.Bytes, r.Outcome)
		if r.Aborted {
			out.WriteString(" aborted")
		}
		out.WriteString("\n")
	}
	return out.String()
}
