package fusedev

import (
	"fmt"
	"os"

	"github.com/reprise-containers/reprise/backstore/fusedev/holder"
	"github.com/reprise-containers/reprise/backstore/fusedev/mounter"
)

// First arguments that make a program one of the package's own processes.
const (
	holderArgument = "fusedev-holder"
	mountArgument  = "fusedev-mount"
)

// Child is called first in main with os.Args. If the program was started as
// one of the package's own processes, it does their work and returns true and
// the exit code; otherwise it returns false at once.
func Child(args []string) (code int, ok bool) {
	if len(args) < 2 {
		return 0, false
	}
	var err error
	switch args[len(args)-1] {
	case holderArgument:
		err = holder.Main()
	case mountArgument:
		err = mounter.Main()
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[len(args)-1], err)
		return 1, true
	}
	return 0, true
}

// command returns the command line for one of the package's processes.
func (c Config) command(argument string) []string {
	return append(append([]string(nil), c.Command...), argument)
}
