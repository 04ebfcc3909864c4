// Package layer works with overlaybd layers that are files: it opens those that
// were written to, or sealed, or committed, and writes them, or stacks of them, as
// committed layers in any of the forms that a layer can have.
package layer
