package mounter_test

import (
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev/mounter"
)

func TestCheckMountOptions(t *testing.T) {
	tests := []struct {
		fsType, options string
		ok              bool
	}{
		{"ext4", "", true},
		{"ext4", " ", true},
		{"ext4", "discard", true},
		{"ext4", "rw,noatime,discard,commit=30,data=writeback", true},
		{"ext4", "nosuid, nodev", true},
		{"xfs", "nouuid,discard,logbufs=8", true},
		{"xfs", "", true},
		{"erofs", "", false},
		{"btrfs", "", false},
		{"", "", false},
		{"ext4", "ro", false},
		{"ext4", "journal_path=/dev/vda", false},
		{"ext4", "journal_dev=0xfd00", false},
		{"ext4", "errors=panic", false},
		{"ext4", "errors=remount-ro", true},
		{"xfs", "logdev=/dev/vda", false},
		{"xfs", "rtdev=vda", false},
		{"ext4", "x=../y", false},
		{"ext4", "a b=1", false},
		{"ext4", "commit=1\nx", false},
	}
	for _, tt := range tests {
		if err := mounter.CheckMountOptions(tt.fsType, tt.options); (err == nil) != tt.ok {
			t.Errorf("%s with %q: %v", tt.fsType, tt.options, err)
		}
	}
}

func TestCheckMkfsOptions(t *testing.T) {
	tests := []struct {
		fsType, options string
		ok              bool
	}{
		{"ext4", "", true},
		{"ext4", " ", true},
		{"ext4", "-O ^has_journal,sparse_super,flex_bg -G 1 -E discard -F", true},
		{"ext4", "-F -b4096 -m 0 -Lname -J size=4", true},
		{"ext4", "-qFb 4096", true},
		{"xfs", "-f -l size=64m -m crc=1,reflink=0", true},
		{"xfs", "-K -dagcount=4", true},
		{"erofs", "", false},
		{"ext3", "", false},
		{"ext4", "-d /etc", false},
		{"ext4", "-Fd/etc", false},
		{"ext4", "-l /etc/shadow", false},
		{"ext4", "-z /tmp/undo", false},
		{"ext4", "-J device=/dev/vda", false},
		{"ext4", "-J device=LABEL=x", false},
		{"ext4", "-O journal_dev", false},
		{"ext4", "-O Journal_Dev", false},
		{"ext4", "-E offset=4096", false},
		{"ext4", "-n", false},
		{"ext4", "-c", false},
		{"ext4", "-b", false},
		{"ext4", "/dev/vda", false},
		{"ext4", "-F /dev/vda", false},
		{"ext4", "-F 100M", false},
		{"ext4", "--", false},
		{"ext4", "-", false},
		{"ext4", "-F -- x", false},
		{"ext4", "-t ext2", false},
		{"ext4", "-F; rm", false},
		{"ext4", "-L $(id)", true}, // a label: there is no shell
		{"xfs", "-p /etc/passwd", false},
		{"xfs", "-c options=/x", false},
		{"xfs", "-d file,name=/x,size=1g", false},
		{"xfs", "-d name=x", false},
		{"xfs", "-l logdev=/dev/vda,size=4m", false},
		{"xfs", "-r rtdev=/dev/vda", false},
		{"xfs", "-N", false},
		{"xfs", "--unsupported", false},
		{"xfs", "-é", false},
	}
	for _, tt := range tests {
		if err := mounter.CheckMkfsOptions(tt.fsType, tt.options); (err == nil) != tt.ok {
			t.Errorf("%s with %q: %v", tt.fsType, tt.options, err)
		}
	}
}

// FuzzCheckMkfsOptions checks that nothing that is accepted has a path in it.
func FuzzCheckMkfsOptions(f *testing.F) {
	f.Add("-O ^has_journal -F")
	f.Add("-F -b 4096 -d /x")
	f.Add("-\xff")
	f.Fuzz(func(t *testing.T, options string) {
		for _, fsType := range []string{"ext4", "xfs"} {
			if mounter.CheckMkfsOptions(fsType, options) != nil {
				continue
			}
			for _, c := range options {
				if c == '/' {
					t.Errorf("%s: %q was accepted", fsType, options)
				}
			}
		}
	})
}

// FuzzCheckMountOptions is the same for mount options.
func FuzzCheckMountOptions(f *testing.F) {
	f.Add("discard,noatime")
	f.Add("logdev=/dev/vda")
	f.Fuzz(func(t *testing.T, options string) {
		for _, fsType := range []string{"ext4", "xfs"} {
			if mounter.CheckMountOptions(fsType, options) != nil {
				continue
			}
			for _, c := range options {
				if c == '/' {
					t.Errorf("%s: %q was accepted", fsType, options)
				}
			}
		}
	})
}
