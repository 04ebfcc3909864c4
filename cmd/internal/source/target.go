package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Prefixes that say what an argument is, as skopeo and podman have them.
const (
	prefixRegistry = "docker://"
	prefixLayout   = "oci:"
	prefixArchive  = "oci-archive:"
)

// SplitPrefix returns what the prefix of an argument says it is, KindRegistry,
// KindLayout or KindArchive, and the rest of it; kind is empty without one.
func SplitPrefix(arg string) (kind Kind, rest string) {
	for prefix, kind := range map[string]Kind{
		prefixRegistry: KindRegistry, prefixLayout: KindLayout, prefixArchive: KindArchive,
	} {
		if rest, ok := strings.CutPrefix(arg, prefix); ok {
			return kind, rest
		}
	}
	return "", arg
}

// SplitTag splits PATH:TAG and PATH@DIGEST. A digest keeps its "@", so that both
// can be told apart.
func SplitTag(arg string) (path, tag string) {
	if i := strings.LastIndexByte(arg, '@'); i > 0 {
		return arg[:i], arg[i:]
	}
	if i := strings.LastIndexByte(arg, ':'); i > strings.LastIndexByte(arg, '/') && i > 0 {
		return arg[:i], arg[i+1:]
	}
	return arg, ""
}

// target is what an argument names.
type target struct {
	// kind is KindRegistry, KindLayout, KindArchive, or KindFile for a file
	// without a prefix, which may be anything.
	kind Kind
	// path is a reference, or a directory or file that exists.
	path string
	// tag is what stands behind the path of a layout or archive.
	tag string
	// guessed says that it is a reference because there is no such file.
	guessed bool
}

// parseTarget finds out what arg names, without opening it.
func parseTarget(arg string) (target, error) {
	kind, rest := SplitPrefix(arg)
	if rest == "" {
		return target{}, errors.New("no image given: name a registry reference, an OCI layout directory or a file")
	}
	if kind == KindRegistry {
		return target{kind: kind, path: rest}, nil
	}
	t := target{kind: kind}
	var st fs.FileInfo
	var err error
	t.path, t.tag, st, err = locate(rest)
	none := errors.Is(err, fs.ErrNotExist)
	switch {
	case none && kind == "" && !strings.HasPrefix(rest, "/") && !strings.HasPrefix(rest, "."):
		return target{kind: KindRegistry, path: rest, guessed: true}, nil
	case err != nil:
		return t, fmt.Errorf("%s is no image: %w", rest, err)
	case st.IsDir() && kind != KindArchive:
		t.kind = KindLayout
		return t, isLayout(t.path)
	case kind == KindLayout:
		return t, fmt.Errorf("%s is no image layout but a file", t.path)
	case kind == "":
		t.kind = KindFile
	}
	return t, nil
}

// locate splits what exists from the tag behind it. If nothing does, the error
// is ENOENT.
func locate(arg string) (path, tag string, st fs.FileInfo, err error) {
	if st, err = os.Stat(arg); err == nil {
		return arg, "", st, nil
	}
	if path, tag = SplitTag(arg); tag != "" {
		if st, err := os.Stat(path); err == nil {
			return path, tag, st, nil
		}
	}
	// FILE/x means that there is no such file, not that something is wrong
	// with FILE.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		err = syscall.ENOENT
	}
	return arg, "", nil, err
}

// isLayout returns an error for a directory that is no OCI layout.
func isLayout(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, ocispec.ImageLayoutFile)); err != nil {
		return fmt.Errorf("%s is a directory but not an OCI layout: %w", dir, err)
	}
	return nil
}
