// Package e2e holds the end-to-end tests: containerd, runc and a registry run
// for real, in a sandbox. They need root and the tools that `make tools`
// fetches; without them they are skipped and say why.
package e2e
