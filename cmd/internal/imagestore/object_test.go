package imagestore_test

import (
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/imagestore"
)

// What is not set stays as it is; other cases of a key that is set go.
func TestObject(t *testing.T) {
	o, err := imagestore.ParseObject([]byte(`{"Z":1.50, "rootfs":1,"RootFS":2,"a":{"b":"<>"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Set("rootfs", []string{"<x>"}); err != nil {
		t.Fatal(err)
	}
	text, err := imagestore.Encode(o)
	if want := `{"Z":1.50,"a":{"b":"<>"},"rootfs":["<x>"]}`; err != nil || string(text) != want {
		t.Errorf("%s, %v; want %s", text, err, want)
	}
	var a struct{ B string }
	if err := o.Get("A", &a); err != nil || a.B != "<>" {
		t.Errorf("%+v, %v", a, err)
	}
	n := 3
	if err := o.Get("missing", &n); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	if err := o.Get("a", &n); err == nil {
		t.Error("an object is a number")
	}
	if o, err := imagestore.ParseObject([]byte("null")); err != nil || o.Set("x", 1) != nil {
		t.Errorf("null: %v, %v", o, err)
	}
	if _, err := imagestore.ParseObject([]byte("[]")); err == nil {
		t.Error("a list is an object")
	}
}
