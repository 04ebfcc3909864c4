package image_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
)

func TestRootfs(t *testing.T) {
	dir, err := image.Scipy().Build(t.Context(), os.Getenv("IMGCACHE"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("chroot", append([]string{dir}, image.ScipyCommand()...)...).CombinedOutput()
	t.Logf("%s %s %v", dir, out, err)
}
