package inspect

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	fmt.Fprintf(w, "%s (%s)\n", r.Name, r.Kind)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.Manifest != "" {
		fmt.Fprintf(tw, "manifest\t%s\n", r.Manifest)
	}
	d := r.Device
	fmt.Fprintf(tw, "device\t%s, %s\n", terminal.Bytes(d.Size), d.fileSystem())
	fmt.Fprintf(tw, "index\t%d segments in %s of memory: %s mapped, %s zeroed, %s holes\n", d.Segments,
		terminal.Bytes(d.Index), terminal.Bytes(d.Mapped), terminal.Bytes(d.Zeroed), terminal.Bytes(d.Holes))
	fmt.Fprintf(tw, "stored\t%s for %s of layer data (%.0f%%)\n", terminal.Bytes(r.Stored),
		terminal.Bytes(r.Stream), 100*float64(r.Stored)/float64(max(r.Stream, 1)))
	if r.Trace != nil {
		fmt.Fprintf(tw, "trace\t%s, %s%s\n", r.Trace.Digest, terminal.Bytes(r.Trace.Size), r.Trace.contents())
	}
	for _, b := range r.Stale {
		fmt.Fprintf(tw, "stale trace\t%s, %s, below other layers\n", b.Digest, terminal.Bytes(b.Size))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if err := r.printLayers(w); err != nil {
		return err
	}
	if err := r.printAttached(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nread %s in %d requests for this report\n", terminal.Bytes(r.Cost.Bytes), r.Cost.Requests)
	return err
}

func (d Device) fileSystem() string {
	s := d.FileSystem
	switch {
	case s == "" && d.Claimed == "":
		return "unknown file system"
	case s == "":
		return "no known file system, although the image claims " + d.Claimed
	}
	s += " of " + terminal.Bytes(d.FileSystemSize)
	if d.Claimed != "" && d.Claimed != d.FileSystem {
		s += ", although the image claims " + d.Claimed
	}
	return s
}

func (r *Report) printLayers(w io.Writer) error {
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "LAYER\tBLOB\tSIZE\tTAR\tZFILE\tRATIO\tLSMT\tSEGMENTS\tDATA\tZEROED\tVISIBLE")
	for i, l := range r.Layers {
		compressed, ratio := "none", "-"
		if z := l.ZFile; z != nil {
			compressed = fmt.Sprintf("%s %s", z.Algorithm, terminal.Bytes(int64(z.BlockSize)))
			if !z.Checksums {
				compressed += " unchecked"
			}
			compressed += ", " + z.Form
			ratio = fmt.Sprintf("%.0f%%", 100*float64(z.Compressed)/float64(max(z.Uncompressed, 1)))
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", i, short(l.Name), terminal.Bytes(l.Size),
			l.Wrapping, compressed, ratio, l.LSMT.Kind, l.LSMT.Segments, terminal.Bytes(l.LSMT.Data),
			terminal.Bytes(l.LSMT.Zeroed), terminal.Bytes(l.Visible.Mapped))
	}
	fmt.Fprintln(tw)
	fmt.Fprintln(tw, "LAYER\tUUID\tPARENT\tVIRTUAL SIZE")
	for i, l := range r.Layers {
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\n", i, l.LSMT.UUID, l.LSMT.Parent, terminal.Bytes(l.LSMT.VirtualSize))
	}
	r.printChunks(tw)
	return tw.Flush()
}

// short abbreviates a digest; a path stays as it is.
func short(name string) string {
	d, err := digest.Parse(name)
	if err != nil {
		return name
	}
	return d.Algorithm().String() + ":" + d.Encoded()[:12]
}
