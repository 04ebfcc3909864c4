// Package filestest makes file systems with the usual tools, to compare what is
// read of them with the files they were made of.
package filestest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Ext4Variants are flags of mkfs.ext4 by the name of what they make.
var Ext4Variants = map[string][]string{
	"default":      nil,
	"inline":       {"-O", "inline_data", "-I", "256"},
	"inline 1k":    {"-O", "inline_data", "-b", "1024", "-I", "512"},
	"1k":           {"-b", "1024"},
	"2k":           {"-b", "2048", "-I", "128"},
	"meta_bg":      {"-O", "meta_bg,^resize_inode", "-b", "1024"},
	"meta_bg 4k":   {"-O", "meta_bg,^resize_inode", "-g", "256", "-N", "8192"},
	"block maps":   {"-O", "^extents,^64bit", "-b", "1024"},
	"32 bits":      {"-O", "^64bit,^metadata_csum"},
	"no flex_bg":   {"-O", "^flex_bg"},
	"sparse2":      {"-O", "sparse_super2,meta_bg,^resize_inode", "-b", "1024"},
	"bigalloc":     {"-O", "bigalloc", "-C", "16384"},
	"large_dir":    {"-O", "large_dir,ea_inode"},
	"as overlaybd": {"-O", "^has_journal,sparse_super,flex_bg", "-G", "1", "-E", "discard"},
}

// Tree fills a folder with files that file systems keep in different ways and
// returns it.
func Tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(content), 0o644))
	}
	for n := range 1500 {
		write(fmt.Sprintf("many/a name that is neither short nor long %04d", n), fmt.Sprint("file ", n))
	}
	for n := range 12 {
		write(fmt.Sprintf("few/%d", n), strings.Repeat("x", n*50))
	}
	write("usr/lib/libstdc++.so.6 (copy)", strings.Repeat("0123456789abcde\n", 10000))
	write("usr/share/Ünïcödé/Grüße, 世界", "hello\n")
	write("usr/bin/app", strings.Repeat("app\n", 1000000))
	write("empty", "")
	write("a/b/c/d/e/f/g/deep", "deep")
	for name, target := range map[string]string{
		"bin": "usr/bin", "lib": "/usr/lib", "usr/bin/up": "../../empty", "loop1": "loop2", "loop2": "loop1",
		"dangling": "nowhere", "out": "../../../../../usr/bin/app", "usr/abs": "/a/b",
		"long": strings.Repeat("./", 60) + "usr/bin/app",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	must(t, os.Link(filepath.Join(dir, "usr/bin/app"), filepath.Join(dir, "usr/bin/same")))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	for _, off := range []int64{0, 70 << 10, 5 << 20, 20<<20 + 100} {
		_, err = f.WriteAt([]byte(fmt.Sprint("data at ", off)), off)
		must(t, err)
	}
	must(t, f.Close())
	return dir
}

// Ext4 makes an ext4 file system of a folder, with hashed directories, and
// returns the file it is in. The test is skipped without the tools.
func Ext4(t testing.TB, dir string, flags ...string) string {
	t.Helper()
	return Ext4Sized(t, 96<<20, dir, flags...)
}

// Ext4Sized is Ext4 with a size in bytes.
func Ext4Sized(t testing.TB, size int64, dir string, flags ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ext4")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, size))
	Run(t, "mkfs.ext4", append(append([]string{"-q", "-F"}, flags...), "-d", dir, file)...)
	// mkfs writes linear directories; this exits 1 because it changes some.
	if out, err := exec.Command("e2fsck", "-fyD", file).CombinedOutput(); exitCode(err) > 1 {
		t.Fatalf("optimizing directories: %v\n%s", err, out)
	}
	return file
}

// Erofs makes an erofs file system of a folder and returns the file it is in. The
// test is skipped without the tool.
func Erofs(t testing.TB, dir string, flags ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "erofs")
	Run(t, "mkfs.erofs", append(flags, file, dir)...)
	return file
}

// Open opens a file that ends with the test.
func Open(t testing.TB, file string) *blob.File {
	t.Helper()
	f, err := blob.OpenFile(file)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Run runs a program, and skips the test where there is none of the name.
func Run(t testing.TB, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // it is never wrapped
		return exit.ExitCode()
	}
	return 127
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
