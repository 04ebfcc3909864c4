// Package tamper reads layers through the registry client, the chunk table and
// all formats from registries that serve wrong bytes: bits flipped, blocks of
// other layers with every checksum made right again, whole other layers. The
// registries are HTTP servers on loopback addresses; nothing needs root.
package tamper
