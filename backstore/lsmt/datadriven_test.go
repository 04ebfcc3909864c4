package lsmt_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// TestIndex runs the scripts in testdata/index:
//
//	layer NAME [size=BYTES] [data=SECTORS]   opens a layer with the given records
//	log NAME [size=BYTES] [data=SECTORS]     opens an append-only layer with the given log
//	stack NAME...                            merges layers, bottom first
//	commit NAME...                           merges, commits, and opens the result
//	find SECTOR...                           looks sectors up in what was stacked last
//
// A record is "offset length mapped [zeroed]". The output is segments or an
// error.
func TestIndex(t *testing.T) {
	datadriven.Walk(t, "testdata/index", func(t *testing.T, path string) {
		e := env{t: t, layers: map[string]*lsmt.Layer{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out, err := e.run(d)
			if err != nil {
				return "error: " + err.Error() + "\n"
			}
			return out
		})
	})
}

type env struct {
	t      *testing.T
	layers map[string]*lsmt.Layer
	image  *lsmt.Image
}

func (e *env) run(d *datadriven.TestData) (string, error) {
	switch d.Cmd {
	case "layer", "log":
		return e.open(d)
	case "stack":
		layers := e.named(d)
		var err error
		if e.image, err = lsmt.Stack(layers); err != nil {
			return "", err
		}
		return format(e.image.Segments(), len(layers)), nil
	case "commit":
		return e.commit(e.named(d))
	case "find":
		return e.find(d), nil
	}
	d.Fatalf(e.t, "unknown command %q", d.Cmd)
	return "", nil
}

// named returns the layers that are named without a value.
func (e *env) named(d *datadriven.TestData) []*lsmt.Layer {
	var layers []*lsmt.Layer
	for _, arg := range d.CmdArgs {
		l, ok := e.layers[arg.Key]
		if !ok {
			d.Fatalf(e.t, "no layer %q", arg.Key)
		}
		layers = append(layers, l)
	}
	return layers
}

func (e *env) open(d *datadriven.TestData) (string, error) {
	size, data := int64(1<<30), 1000
	d.MaybeScanArgs(e.t, "size", &size)
	d.MaybeScanArgs(e.t, "data", &data)
	id := lsmt.Identity{VirtualSize: size}
	records := parse(e.t, d.Input)
	var l *lsmt.Layer
	var err error
	if d.Cmd == "layer" {
		l, err = lsmt.Open(e.t.Context(), memory(lsmt.BuildLayer(id, sectors(0, data), records)))
	} else {
		dataFile, indexFile := lsmt.BuildLog(id, sectors(0, data), records)
		l, err = lsmt.OpenWritable(e.t.Context(), memory(dataFile), memory(indexFile))
	}
	if err != nil {
		return "", err
	}
	e.layers[d.CmdArgs[0].Key] = l
	out := format(l.Segments(), 1)
	if l.Dropped() > 0 {
		out += "dropped " + strconv.FormatInt(l.Dropped(), 10) + "\n"
	}
	return out, nil
}

func (e *env) commit(layers []*lsmt.Layer) (string, error) {
	image, err := lsmt.Stack(layers)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := image.Commit(e.t.Context(), &b, lsmt.Identity{}); err != nil {
		return "", err
	}
	l, err := lsmt.Open(e.t.Context(), memory(b.Bytes()))
	if err != nil {
		return "", err
	}
	return format(l.Segments(), 1) + strconv.Itoa(b.Len()) + " bytes\n", nil
}

func (e *env) find(d *datadriven.TestData) string {
	var out strings.Builder
	for _, arg := range d.CmdArgs {
		sector, err := strconv.ParseInt(arg.Key, 10, 64)
		if err != nil {
			d.Fatalf(e.t, "%v", err)
		}
		out.WriteString(arg.Key + ": " + strconv.Itoa(e.image.Find(sector)) + "\n")
	}
	return out.String()
}
