package cacheadmin

// ParseImage parses an argument of purge.
func ParseImage(text string) (host, repository, reference string, err error) {
	img, err := parseImage(text)
	return img.host, img.repository, img.reference, err
}
