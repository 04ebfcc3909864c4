// Package upstream is how the registry cache reaches registries: the one place
// that dials them.
//
// A Client sends what it is given, with the caller's own credentials, and adds
// nothing but a User-Agent. What it takes care of is what a proxy of many callers
// must not get wrong: which addresses are dialled (Config.AllowPrivate), where a
// redirect may lead and what it may carry along, where a challenge may send a
// caller for a token (RealmError), how many requests are under way (Config.Workers),
// and that a registry that asks to be left alone is left alone. It keeps no
// credentials, only salted hashes of them, and no text of it holds the query of a
// URL.
package upstream
