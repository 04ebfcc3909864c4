// Package permit answers whether a caller may have what is in the cache: its
// upstream is asked with the caller's own credentials.
//
// A permission is of one resource and one credential, and is never derived from
// another: who may read a repository may not for that read every digest by way of
// it. Answers are kept as long as Config allows, under a salted hash of the
// credential, and no longer than a token says it is valid. An answer 401, 403 or 404
// ends what was kept.
package permit
