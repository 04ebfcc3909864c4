package blockd

// The daemon prints a message a line, of which one is the first, and reads
// commands from standard input.

// Ready says that all devices are there.
type Ready struct {
	// Paths are the loop devices, and the folders that file systems are mounted
	// on, by device.
	Paths map[string]string
	// Holder is the process that holds the connection to the kernel.
	Holder int
}

// message is a line of the daemon.
type message struct {
	Ready  *Ready
	Answer *answer
}

// command asks the daemon for something.
type command struct {
	ID     int
	Do     string
	Device string
	File   string
}

// What a daemon can be asked to do.
const (
	commit  = "commit"  // a picture of a device to a layer file
	restack = "restack" // seal the writable layer under a new one
	detach  = "detach"  // unmount and close a device
	seal    = "seal"    // detach, and seal the writable layer
	stop    = "stop"    // detach all and end
)

// answer is to a command.
type answer struct {
	ID    int
	Error string
	// Below are the layers below the one that a commit has written.
	Below []string
}
