package registry

// For fuzzing.
var (
	ParseContentRange = parseContentRange
	Excerpt           = excerpt
)

// ParseReferrers parses an index of referrers.
var ParseReferrers = parseReferrers
