// Package files finds what reading files of an image reads of its device: the
// content and the metadata on the way, of ext4 and erofs. So a list of files
// becomes a trace, without a container having started.
//
// Paths are looked up within the image, symbolic links included, which lead
// nowhere else. A path that ends in a slash means all that is below it, where
// symbolic links are not followed. A directory without one means its names.
//
// Images are not trusted. Metadata is read through a bounded number of pages,
// each of which is kept like in a page cache, and no more is read of content
// than the device has; see the limits in walk.go and pages.go.
package files
