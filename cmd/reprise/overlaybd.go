package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// What is called in place of overlaybd's own tools, by their names: nerdctl and
// BuildKit run them below /opt/overlaybd/bin. Arguments are as there, and flags
// that would change what comes out are refused if they are not supported.

// called returns the command line that this program is under the name it was
// called by.
func called(name string) *cli.Command {
	switch filepath.Base(name) {
	case "overlaybd-create":
		return overlaybdTool(overlaybdCreate())
	case "overlaybd-commit":
		return overlaybdTool(overlaybdCommit())
	case "overlaybd-merge":
		return overlaybdTool(overlaybdMerge())
	}
	return newApp()
}

// overlaybdTool completes a command that is a whole program.
func overlaybdTool(cmd *cli.Command) *cli.Command {
	cmd.Version = version
	cmd.HideVersion = true
	cmd.HideHelpCommand = true
	cmd.UseShortOptionHandling = true
	cmd.OnUsageError = onUsageError
	cmd.ExitErrHandler = newApp().ExitErrHandler
	return cmd
}

// refused are flags of overlaybd's tools that are not supported, and why.
type refused map[string]string

const (
	noTurboOCI = "TurboOCI layers are not supported"
	noUpload   = "it writes to files only; \"reprise convert\" and \"ctr push\" push images"
	noService  = "credentials are those of docker's config.json"
)

// flags are the flags, hidden.
func (r refused) flags() []cli.Flag {
	var flags []cli.Flag
	for name := range r {
		// Whether a flag has a value is the same for all of a reason.
		if r[name] == noUpload || r[name] == noService {
			flags = append(flags, &cli.StringFlag{Name: name, Hidden: true})
		} else {
			flags = append(flags, &cli.BoolFlag{Name: name, Hidden: true})
		}
	}
	return flags
}

// check refuses a command line with one of them.
func (r refused) check(cmd *cli.Command) error {
	var found []string
	for name, why := range r {
		if cmd.IsSet(name) {
			found = append(found, fmt.Sprintf("--%s: %s", name, why))
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	return usageError{errors.New(strings.Join(found, "; "))}
}

// arguments returns the n positional arguments.
func arguments(cmd *cli.Command, n int) ([]string, error) {
	if args := cmd.Args().Slice(); len(args) == n {
		return args, nil
	}
	return nil, usageError{fmt.Errorf("%s takes %s, not %d: %s", cmd.Name, count(n, "argument"), cmd.Args().Len(), cmd.ArgsUsage)}
}
