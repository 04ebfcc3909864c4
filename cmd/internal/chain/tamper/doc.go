// Package tamper reads layers through the whole read chain, cache included, and
// all formats, from registries that serve wrong bytes: bits flipped, blocks of
// other layers with every checksum made right again, whole other layers. Each
// layer is read a second time, because what is in the cache is not verified
// again. The registries are HTTP servers on loopback addresses; nothing needs
// root.
package tamper
