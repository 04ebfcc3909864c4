// Package traces is what commands do with traces of images: take them off,
// attach them, and make what is missing of them.
package traces
