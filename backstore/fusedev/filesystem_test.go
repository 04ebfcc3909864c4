package fusedev_test

import (
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

func TestParseFileSystem(t *testing.T) {
	type fileSystem = fusedev.FileSystem
	good := map[string]fileSystem{
		"ext4":                          {Type: "ext4"},
		"xfs;nouuid":                    {Type: "xfs", MountOptions: "nouuid"},
		"ext4;":                         {Type: "ext4", MountOptions: fusedev.NoOptions},
		"ext4;;":                        {Type: "ext4", MountOptions: fusedev.NoOptions, MkfsOptions: fusedev.NoOptions},
		"ext4;discard,noatime;-F -m 0":  {Type: "ext4", MountOptions: "discard,noatime", MkfsOptions: "-F -m 0"},
		" ext4 ; discard ; -F -b 4096 ": {Type: "ext4", MountOptions: "discard", MkfsOptions: "-F -b 4096"},
		"ext4;;-O ^has_journal":         {Type: "ext4", MountOptions: fusedev.NoOptions, MkfsOptions: "-O ^has_journal"},
	}
	for s, want := range good {
		if got, err := fusedev.ParseFileSystem(s); err != nil || got != want {
			t.Errorf("ParseFileSystem(%q) = %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", ";", "erofs", "f2fs", "ntfs", "ext4;x;-F;", "ext4;logdev=/x", "ext4;;-d /etc", "ext4;ro"} {
		if got, err := fusedev.ParseFileSystem(s); err == nil {
			t.Errorf("ParseFileSystem(%q) = %+v", s, got)
		}
	}
}

func FuzzParseFileSystem(f *testing.F) {
	f.Add("ext4;discard;-F")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := fusedev.ParseFileSystem(s)
		if err == nil && got.Type != "ext4" && got.Type != "xfs" {
			t.Errorf("ParseFileSystem(%q) = %+v", s, got)
		}
	})
}
