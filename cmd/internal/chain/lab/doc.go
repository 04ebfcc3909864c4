// Package lab is what replay is measured in: a registry behind a line of a
// known rate and round trip whose end can tell what it has sent, and an image
// with a recorded start.
package lab
