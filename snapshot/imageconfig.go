package snapshot

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const (
	configName = "config.v1.json"
	refName    = "image_ref"
	// maxConfig bounds what is read of a configuration, in bytes: 255 layers
	// with long paths are a tenth of it.
	maxConfig = 1 << 20
)

// layerFiles are the names under which a directory holds an overlaybd layer.
var layerFiles = []string{backstore.LayerFile, ".commit", sealedFile}

// imageConfig is what an image snapshot is made of, as upstream's backstore
// reads it (unknown keys are ignored there).
type imageConfig struct {
	// RepoBlobURL is the URL of the repository's blobs, for upstream's tools.
	RepoBlobURL string `json:"repoBlobUrl"`
	// Lowers are the layers, bottom first.
	Lowers []lower `json:"lowers"`
	// Acceleration says that the last lower is a trace layer.
	Acceleration bool `json:"accelerationLayer,omitempty"`
	// FSType is the image's claim, "" if there is none. Not upstream's.
	FSType string `json:"fsType,omitempty"`
	// Manifest is the digest of the image's manifest, "" if it is not known.
	// Not upstream's.
	Manifest digest.Digest `json:"manifestDigest,omitempty"`

	// ref is the image reference. It has a file of its own, as upstream.
	ref string
}

// lower is one layer: a blob, a directory that holds the layer or is to hold
// it, or both. The topmost layer is written without its directory when it is
// read lazily: the directory has no name yet, and readConfig knows it.
type lower struct {
	Dir    string        `json:"dir,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	Size   int64         `json:"size,omitempty"`
	// Where the chunk table of the blob lies, if it has one. Not upstream's.
	ChunksRoot   digest.Digest `json:"chunksRoot,omitempty"`
	ChunksOffset int64         `json:"chunksOffset,omitempty"`
	ChunksSize   int64         `json:"chunksSize,omitempty"`
	// Where the plan lies in the blob of a trace layer, if it has one. Not
	// upstream's.
	PlanDigest digest.Digest `json:"planDigest,omitempty"`
	PlanOffset int64         `json:"planOffset,omitempty"`
	PlanSize   int64         `json:"planSize,omitempty"`
}

// chunks returns where the chunk table of l lies.
func (l lower) chunks() chunks.Ref {
	return chunks.Ref{Root: l.ChunksRoot, Offset: l.ChunksOffset, Size: l.ChunksSize}
}

// table tells in messages where the chunk table of l lies.
func (l lower) table() string {
	if l.chunks().IsZero() {
		return "no chunk table"
	}
	return fmt.Sprintf("chunk table %s (%d bytes at %d)", l.ChunksRoot, l.ChunksSize, l.ChunksOffset)
}

// remoteLower returns the lower of the blob that l describes, whose chunk table
// is ref.
func remoteLower(l labels.Labels, ref chunks.Ref) lower {
	return lower{
		Digest: l.Blob, Size: l.BlobSize,
		ChunksRoot: ref.Root, ChunksOffset: ref.Offset, ChunksSize: ref.Size,
	}
}

// with returns c with one more layer on top. A trace below it is dropped: it
// must be the topmost layer, and it was recorded without what is now above.
func (c imageConfig) with(l lower) imageConfig {
	c = c.withoutTrace()
	c.Lowers = append(slices.Clone(c.Lowers), l)
	return c
}

// withoutTrace returns c without its trace layer, if it has one.
func (c imageConfig) withoutTrace() imageConfig {
	c.Lowers = c.layers()
	c.Acceleration = false
	return c
}

// withTrace returns c with a trace layer, in place of the one it may have.
func (c imageConfig) withTrace(trace lower) imageConfig {
	c = c.with(trace)
	c.Acceleration = true
	return c
}

// withClaims returns c with the reference and the file system type that l, the
// labels of the topmost layer, state, where they do, and its manifest.
func (c imageConfig) withClaims(l labels.Labels) imageConfig {
	if l.Image != "" {
		c.ref = l.Image
		c.RepoBlobURL = repoBlobURL(l.Image)
	}
	if l.FSType != "" {
		c.FSType = l.FSType
	}
	c.Manifest = l.Manifest // that of another image would not do
	return c
}

// layers returns the layers of the device: all but a trace.
func (c imageConfig) layers() []lower {
	if c.Acceleration {
		return c.Lowers[:len(c.Lowers)-1]
	}
	return c.Lowers
}

// agrees returns an error if the topmost layer of c is not what a later pull of
// the same chain ID states. A chain ID is a claim of an image's config, which
// nobody has checked for a layer that is read lazily, and says nothing about the
// chunk table; but all images with the same claim share the snapshot.
//
//   - Another blob, or another table: refused. One of the two lies, and which one
//     can not be told here.
//   - A table where c has none: refused. To go on would be to read without
//     verification what the image's manifest has a table for, for no other reason
//     than that somebody else pulled the layer without it.
//   - No table where c has one: taken. Every byte is compared with a table,
//     which is more than the image asks for: what is read is what that table
//     says, or an error.
//   - A file in the snapshot: taken. It was compared with its digest as a whole,
//     and no table is used.
//   - A trace layer where c has a layer of the device, or the other way round:
//     refused, for what is above would be read from another device.
func (c imageConfig) agrees(want lower) error {
	have := c.Lowers[len(c.Lowers)-1]
	var was, is string
	switch {
	case c.Acceleration:
		was, is = "a trace in it", "a layer of the file system"
	case have.Digest == "": // unpacked by containerd, which knew the digest
		return nil
	case have.Digest != want.Digest || have.Size != want.Size:
		was = fmt.Sprintf("blob %s of %d bytes", have.Digest, have.Size)
		is = fmt.Sprintf("blob %s of %d bytes", want.Digest, want.Size)
	case layerFile(have.Dir) != "", want.chunks().IsZero(), want.chunks() == have.chunks():
		return nil
	default:
		was, is = have.table(), want.table()
	}
	return fmt.Errorf("layer %s is here already, pulled for %s with %s, but this image states %s: remove the image that pulled it first, from all namespaces of containerd, and pull again: %w",
		want.Digest, cmp.Or(c.ref, "an image without a name"), was, is, errdefs.ErrFailedPrecondition)
}

// agreesOnTrace does the same for a trace layer. What the image says of its plan
// is not compared: a plan is advice, and the first one is taken.
func (c imageConfig) agreesOnTrace(want lower) error {
	have := c.Lowers[len(c.Lowers)-1]
	// One that was unpacked without a trace in it left the image below.
	if c.Acceleration || have.Digest != want.Digest {
		return nil
	}
	return fmt.Errorf("layer %s is here already, pulled for %s as a layer of the file system, but this image calls it a trace: remove the image that pulled it first, from all namespaces of containerd, and pull again: %w",
		want.Digest, cmp.Or(c.ref, "an image without a name"), errdefs.ErrFailedPrecondition)
}

// check reports what cannot be right.
func (c imageConfig) check() error {
	layers := len(c.Lowers)
	if c.Acceleration {
		layers--
	}
	if layers < 1 || layers > backstore.MaxLayers {
		return fmt.Errorf("%d layers; an overlaybd image has 1 to %d", layers, backstore.MaxLayers)
	}
	if c.Manifest != "" {
		if err := c.Manifest.Validate(); err != nil {
			return fmt.Errorf("manifest %q: %w", c.Manifest, err)
		}
	}
	for i, l := range c.Lowers {
		if err := l.check(); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return nil
}

// check reports what cannot be right.
func (l lower) check() error {
	switch {
	case l.Dir == "" && l.Digest == "":
		return errors.New("neither directory nor digest")
	case l.Dir != "" && !filepath.IsAbs(l.Dir):
		return fmt.Errorf("directory %q is not absolute", l.Dir)
	case l.Digest == "":
		return nil
	case l.Size <= 0:
		return fmt.Errorf("size %d of %s", l.Size, l.Digest)
	}
	if err := l.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", l.Digest, err)
	}
	if ref := l.chunks(); !ref.IsZero() {
		return ref.Validate(l.Size)
	}
	return nil
}

// image resolves c to what a device is opened with. It looks for local files.
func (c imageConfig) image() (backstore.Image, error) {
	img := backstore.Image{Ref: c.ref, FSType: c.FSType}
	for i, l := range c.layers() {
		layer := backstore.Layer{Digest: l.Digest, Size: l.Size, Dir: l.Dir, Annotations: labels.WithChunks(l.chunks())}
		if c.Manifest != "" {
			layer.Annotations[labels.ManifestDigest] = c.Manifest.String()
		}
		if l.Dir != "" {
			layer.File = layerFile(l.Dir)
		}
		if layer.Remote() {
			if l.Digest == "" {
				return img, fmt.Errorf("layer %d: no %s in %s", i, layerFiles[0], l.Dir)
			}
			if c.ref == "" {
				return img, fmt.Errorf("layer %d: %s is remote, but the image reference is not known", i, l.Digest)
			}
		}
		img.Layers = append(img.Layers, layer)
	}
	if c.Acceleration {
		if t := c.Lowers[len(c.Lowers)-1].trace(); t.Dir != "" || t.Layer.Digest != "" {
			img.Trace = t
		}
	}
	return img, nil
}

// layerFile returns the overlaybd layer in dir, or "".
func layerFile(dir string) string {
	for _, name := range layerFiles {
		path := filepath.Join(dir, name)
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// write stores c in the directory of a snapshot and makes it an image snapshot.
func (c imageConfig) write(dir string) error {
	if err := c.check(); err != nil {
		return err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	block := filepath.Join(dir, "block")
	if err := os.MkdirAll(filepath.Join(block, "mountpoint"), 0o700); err != nil {
		return err
	}
	if c.ref != "" {
		if err := writeFile(dir, refName, []byte(c.ref)); err != nil {
			return err
		}
	}
	if err := writeFile(block, configName, data); err != nil {
		return err
	}
	return syncDir(dir)
}

// readConfig reads what write stored. The error names the file.
func readConfig(dir string) (imageConfig, error) {
	path := filepath.Join(dir, "block", configName)
	data, err := readBounded(path)
	if err != nil {
		return imageConfig{}, err
	}
	var c imageConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return imageConfig{}, fmt.Errorf("parsing %s: %w", path, err)
	}
	if err := c.check(); err != nil {
		return imageConfig{}, fmt.Errorf("checking %s: %w", path, err)
	}
	ref, err := readBounded(filepath.Join(dir, refName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return imageConfig{}, err
	}
	c.ref = strings.TrimSpace(string(ref))
	if top := &c.Lowers[len(c.Lowers)-1]; top.Dir == "" {
		top.Dir = filepath.Join(dir, "fs")
	}
	return c, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("reading %s: larger than %d bytes", path, maxConfig)
	}
	return data, err
}

// repoBlobURL returns the URL upstream's tools read the image's blobs from,
// or "" if ref is no reference. Reprise itself goes by ref.
func repoBlobURL(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	host := reference.Domain(named)
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	return "https://" + host + "/v2/" + reference.Path(named) + "/blobs"
}
