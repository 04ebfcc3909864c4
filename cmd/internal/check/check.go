// Package check looks for everything that is wrong with an image: the digest of
// each blob, the checksum of each block, the rules of the formats, and what the
// manifest says about them. It goes on after a problem, reads every byte once,
// and holds no more than a few pieces in memory.
package check

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Kind is the class of a problem.
type Kind string

// The kinds of problem.
const (
	Descriptor Kind = "descriptor" // annotations and descriptor disagree
	Structure  Kind = "structure"  // header, trailer, jump table or index
	Block      Kind = "block"      // checksum or encoding of a block
	Digest     Kind = "digest"     // of the whole blob
	Read       Kind = "read"       // bytes that could not be read
	Trailer    Kind = "trailer"    // of a ZFile that can be read without it
	Chunks     Kind = "chunks"     // chunk table, or bytes that it covers
	Stack      Kind = "stack"      // the layers do not fit together
	Trace      Kind = "trace"      // what a trace layer holds
)

// Problem is one thing that is wrong.
type Problem struct {
	Kind Kind `json:"kind"`
	// Warning marks what does not keep the image from being read right.
	Warning bool `json:"warning,omitempty"`
	// Place is where in the blob, or nil.
	Place *Place `json:"place,omitempty"`
	// Text says what is wrong.
	Text string `json:"text"`
}

// Place is a range of a blob.
type Place struct {
	Block  *int64 `json:"block,omitempty"` // number of the ZFile block, if it is one
	Offset int64  `json:"offset"`          // bytes
	Length int64  `json:"length"`          // bytes
}

// String formats p for people.
func (p Problem) String() string {
	s := string(p.Kind)
	if p.Place != nil {
		if p.Place.Block != nil {
			s = fmt.Sprintf("block %d", *p.Place.Block)
		}
		s += fmt.Sprintf(", %d bytes at offset %d", p.Place.Length, p.Place.Offset)
	}
	if p.Warning {
		s = "warning: " + s
	}
	return s + ": " + p.Text
}

// Layer is the result for one layer.
type Layer struct {
	// Name is the digest, or the path of a bare file.
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
	// Digest is what the bytes hash to; empty if not all could be read.
	Digest digest.Digest `json:"digest,omitempty"`
	// Claimed tells whether there was a digest to compare with.
	Claimed bool `json:"claimed"`
	// Blocks is the number of ZFile blocks, 0 for a bare LSMT file.
	Blocks int64 `json:"blocks"`
	// Checksums tells whether the blocks carry checksums.
	Checksums bool `json:"checksums"`
	// Chunks is the number of chunks that the chunk table has hashes of, 0 if there is none.
	Chunks   int64     `json:"chunks,omitempty"`
	Trace    bool      `json:"trace,omitempty"`
	Problems []Problem `json:"problems,omitempty"`
	// More is the number of problems left out of Problems.
	More int `json:"more,omitempty"`
}

// Result is the result for an image.
type Result struct {
	Name   string  `json:"name"`
	Layers []Layer `json:"layers"` // bottom first, then the trace layer
	// Problems are those of the image as a whole.
	Problems []Problem `json:"problems,omitempty"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
}

// Config says how to check.
type Config struct {
	// Parallel is the number of pieces read and checked at a time; 4 if 0.
	Parallel int
	// Progress is told about bytes as they are done. Optional.
	Progress func(bytes int64)
}

// Image checks img. The error is that of a check that could not be finished,
// not of an image with problems.
func Image(ctx context.Context, img *source.Image, cfg Config) (*Result, error) {
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	if cfg.Progress == nil {
		cfg.Progress = func(int64) {}
	}
	res := &Result{Name: img.Name}
	var stack []*lsmt.Layer
	for _, b := range img.Layers {
		c := checker{cfg: cfg, blob: b}
		if err := c.run(ctx); err != nil {
			return nil, err
		}
		res.Layers = append(res.Layers, c.res)
		if c.opened != nil {
			stack = append(stack, c.opened)
		}
	}
	if len(stack) == len(img.Layers) {
		if _, err := lsmt.Stack(stack); err != nil {
			res.Problems = append(res.Problems, Problem{Kind: Stack, Text: err.Error()})
		}
	}
	if err := res.traces(ctx, img, cfg); err != nil {
		return nil, err
	}
	res.count()
	return res, nil
}

func (r *Result) count() {
	tally := func(problems []Problem) {
		for _, p := range problems {
			if p.Warning {
				r.Warnings++
			} else {
				r.Errors++
			}
		}
	}
	tally(r.Problems)
	for _, l := range r.Layers {
		tally(l.Problems)
		r.Errors += l.More
	}
}

// descriptor compares the annotations the snapshotter goes by with the
// descriptor containerd goes by.
func (c *checker) descriptor() {
	desc := c.blob.Descriptor()
	l, err := labels.Parse(desc.Annotations)
	if err != nil {
		c.problem(Problem{Kind: Descriptor, Text: err.Error()})
		return
	}
	if l.Blob != "" && l.Blob != desc.Digest {
		c.problem(Problem{Kind: Descriptor, Text: fmt.Sprintf("annotation %s is %s, the layer's digest is %s", labels.BlobDigest, l.Blob, desc.Digest)})
	}
	if l.BlobSize != 0 && l.BlobSize != desc.Size {
		c.problem(Problem{Kind: Descriptor, Text: fmt.Sprintf("annotation %s is %d, the layer has %d bytes", labels.BlobSize, l.BlobSize, desc.Size)})
	}
}
