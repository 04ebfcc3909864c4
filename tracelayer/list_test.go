package tracelayer_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/tracelayer"
)

func TestList(t *testing.T) {
	got, err := tracelayer.ParseList(vector(t, "priority.list"))
	want := []string{"/bin/busybox", "/usr/share/doc/dir2/", "/etc/passwd", "/nonexistent"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("upstream's list is %q, %v", got, err)
	}
	got, err = tracelayer.ParseList([]byte("  /usr/lib/libstdc++.so.6 \r\n\n\t/a b@2*\n \n/umlaut/größe\n/d/\n/last"))
	want = []string{"/usr/lib/libstdc++.so.6", "/a b@2*", "/umlaut/größe", "/d/", "/last"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if got, err := tracelayer.ParseList(nil); err != nil || len(got) != 0 {
		t.Errorf("empty list: %q, %v", got, err)
	}
	encoded, err := tracelayer.EncodeList(want)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := tracelayer.ParseList(encoded); err != nil || !slices.Equal(again, want) {
		t.Errorf("encoded and parsed: %q, %v", again, err)
	}
}

func TestListBad(t *testing.T) {
	full := strings.Repeat("/0123456789abcd\n", tracelayer.MaxList/16)
	if got, err := tracelayer.ParseList([]byte(full)); err != nil || len(got) != 4096 {
		t.Errorf("list of %d bytes: %d paths, %v", len(full), len(got), err)
	}
	for name, data := range map[string]string{
		"65537 bytes": full + "\n",
		"line 2":      "/a\n/b\x00\n",
	} {
		if _, err := tracelayer.ParseList([]byte(data)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What looks like a trace but is none is no list either.
	if _, err := tracelayer.ParseList(vector(t, "bad-magic.trace")); err == nil {
		t.Error("a trace was taken for a list")
	}
	for _, paths := range [][]string{{""}, {"/a", "/b\n/c"}, {"/a\x00"}, {" /a"}, {"/a\t"}, {"\r"}, {strings.Repeat("a", 65536)}} {
		if b, err := tracelayer.EncodeList(paths); err == nil {
			t.Errorf("%.20q was encoded as %.20q", paths, b)
		}
	}
}

// FuzzParseList parses any bytes; what it finds can be encoded again, unless
// that is longer.
func FuzzParseList(f *testing.F) {
	f.Add([]byte("/bin/a b\n /c+/ \r\n"))
	f.Add(vector(f, "priority.list"))
	f.Fuzz(func(t *testing.T, data []byte) {
		paths, err := tracelayer.ParseList(data)
		if err != nil {
			return
		}
		b, err := tracelayer.EncodeList(paths)
		if err != nil {
			if len(data) < tracelayer.MaxList {
				t.Fatal(err)
			}
			return
		}
		if again, err := tracelayer.ParseList(b); err != nil || !slices.Equal(again, paths) {
			t.Fatalf("%q, %v, want %q", again, err, paths)
		}
	})
}
