package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// stackConfig is the part of overlaybd's config.v1.json that says what a
// read-only device is made of.
type stackConfig struct {
	RepoBlobURL       string  `json:"repoBlobUrl"`
	Lowers            []lower `json:"lowers"` // bottom first
	AccelerationLayer bool    `json:"accelerationLayer"`
}

type lower struct {
	File         string        `json:"file"`
	Dir          string        `json:"dir"`
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	TargetFile   string        `json:"targetFile"`
	TargetDigest string        `json:"targetDigest"`
}

// localNames are the names of a layer in the directory of a lower, in the order
// in which overlaybd looks for them.
var localNames = []string{"overlaybd.commit", ".commit", "overlaybd.sealed"}

func openConfig(f readAtCloser, name string, cfg Config) (_ *Image, err error) {
	doc, err := readDocument(io.NewSectionReader(f, 0, f.Size()), ocispec.Descriptor{})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	var c stackConfig
	if err := json.Unmarshal(doc, &c); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	if c.AccelerationLayer && len(c.Lowers) > 0 {
		c.Lowers = c.Lowers[:len(c.Lowers)-1]
	}
	if len(c.Lowers) == 0 {
		return nil, fmt.Errorf("%s names no lowers: it is not a config.v1.json of overlaybd, nor a layer", name)
	}
	img := &Image{Name: name, Kind: KindConfig}
	defer func() {
		if err != nil {
			_ = img.Close() // the first error counts
		}
	}()
	for n, l := range c.Lowers {
		b, err := l.open(c.RepoBlobURL, cfg.Registry, img)
		if err != nil {
			return nil, fmt.Errorf("opening lower %d of %s: %w", n, name, err)
		}
		img.Layers = append(img.Layers, b)
	}
	return img, nil
}

// open opens the layer where overlaybd would: the file, a file of the
// directory, the registry.
func (l lower) open(repo string, registry Registry, img *Image) (blob.Blob, error) {
	if l.TargetFile != "" || l.TargetDigest != "" {
		return nil, errors.New("is a TurboOCI layer, which is not supported")
	}
	names := []string{}
	if l.File != "" {
		names = append(names, l.File)
	}
	if l.Dir != "" {
		for _, n := range localNames {
			names = append(names, filepath.Join(l.Dir, n))
		}
	}
	for _, n := range names {
		f, err := openFile(n)
		if errors.Is(err, fs.ErrNotExist) && (l.Digest != "" || n != names[len(names)-1]) {
			continue
		}
		if err != nil {
			return nil, err
		}
		img.closers = append(img.closers, f)
		return newNamedSection(f, n), nil
	}
	if l.Digest == "" {
		return nil, errors.New("it has neither file, dir nor digest")
	}
	return l.remote(repo, registry)
}

func (l lower) remote(repo string, registry Registry) (blob.Blob, error) {
	if err := l.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", l.Digest, err)
	}
	if registry == nil || l.Size <= 0 {
		return nil, fmt.Errorf("no local copy of %s, and no size to read it from %q with", l.Digest, repo)
	}
	ref, err := repository(repo)
	if err != nil {
		return nil, err
	}
	return registry.Open(ref, ocispec.Descriptor{Digest: l.Digest, Size: l.Size})
}

// repository turns https://host/v2/<repository>/blobs into a reference.
func repository(blobURL string) (string, error) {
	u, err := url.Parse(blobURL)
	if err != nil {
		return "", fmt.Errorf("parsing repoBlobUrl: %w", err)
	}
	repo, ok := strings.CutPrefix(strings.TrimSuffix(u.Path, "/"), "/v2/")
	repo, ok2 := strings.CutSuffix(repo, "/blobs")
	if !ok || !ok2 || u.Host == "" {
		return "", fmt.Errorf("repoBlobUrl %q is not of the form https://host/v2/<repository>/blobs", blobURL)
	}
	host := u.Host
	if host == "registry-1.docker.io" {
		host = "docker.io"
	}
	return host + "/" + repo, nil
}
