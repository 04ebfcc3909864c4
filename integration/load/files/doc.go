// Package files loads a file system with files that are written, made durable,
// renamed and removed, and knows afterwards which may be there.
//
// Workers have a folder each, do one thing at a time and note it before they do
// it. The content of a file follows from its worker and a number, so that any file
// can be told by what is in it. New content is written under another name and made
// durable before it gets its own, so a file is never there in part.
//
// File systems with a journal keep the order of changes to names, so what a
// worker's folder holds must be what it held after some of its operations: at
// least those the Floor has, which are all that were acknowledged, or all up to the
// last fsync of the folder.
package files
