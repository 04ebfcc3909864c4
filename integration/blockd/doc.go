// Package blockd is a daemon that serves writable devices with the product's own
// packages, in a process of its own that is made to be killed, and what a test or
// a benchmark needs to drive it.
//
// A program that uses it calls Child first thing in main.
package blockd
