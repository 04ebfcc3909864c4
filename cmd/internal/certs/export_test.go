package certs

// Look looks at the files as Run does.
func (k *Keeper) Look() { k.look() }
