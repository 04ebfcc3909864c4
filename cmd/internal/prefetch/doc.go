// Package prefetch fetches what images need to start before somebody waits for
// it: it takes the images that are being pulled or attached and works on them in
// the background.
//
// What to fetch is, in this order, what the plan of the image's trace layer says;
// what a trace without a plan says, through the layers' jump tables; the files
// that a priority list in place of a trace names. An image without a trace may
// have one beside it in its registry, a referrer, which is looked for if a Finder
// is there.
//
// Whatever is wrong with any of that is told to the observer and is nobody's
// error: the image is read when needed, then.
package prefetch
