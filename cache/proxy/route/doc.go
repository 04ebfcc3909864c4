// Package route answers which upstream registry a request is for.
//
// What a client names (the Host it believes to speak to, containerd's ns
// parameter) is a key to look up, never an address to dial: an upstream is one
// that the configuration names, or a name under a domain that it names.
package route
