// Command distribution is distribution's registry with what its mode as a
// pull-through cache needs, and no storage driver but the one for folders. It is
// a module of its own, so that the registry is no dependency of anything else.
// Its arguments are those of the registry: "serve config.yml".
package main

import (
	"fmt"
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/proxy"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	if err := registry.RootCmd.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "distribution:", err)
		os.Exit(1)
	}
}
