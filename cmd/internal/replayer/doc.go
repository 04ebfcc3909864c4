// Package replayer does what trace-replayer is asked to do: it puts the parts of
// cache/workload together as a configuration says, and tells people and files what
// came of it.
package replayer

import (
	"io"

	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
)

// Replayer does the work of a configuration.
type Replayer struct {
	Config replayconfig.Config
	// Version is that of the program: master and clients must have the same.
	Version string
	// Out gets results, Log what goes on meanwhile. Log may be nil.
	Out, Log io.Writer
}
