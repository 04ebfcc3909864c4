// Package tarblob reads and writes the tar archive around an overlaybd layer.
//
// A layer blob in a registry is a tar archive whose first member holds the
// layer, so that any tool that unpacks layers can store it. Two shapes exist:
// with a pax header, where the payload starts at byte 1536 and the pax record
// gives its size (written by overlaybd and by this package), and a plain ustar
// header, where it starts at byte 512. What follows the first member is not
// looked at: registries hold archives with additional zero blocks and with
// further members.
package tarblob
