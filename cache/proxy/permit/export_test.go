package permit

import "time"

// CredentialHash is what a Checker knows a credential by.
func CredentialHash(c *Checker, auth Secret) [32]byte { return c.salt.credential(auth) }

// Expiry returns when a credential ends.
func Expiry(auth Secret) (time.Time, bool) { return expiry(auth) }
