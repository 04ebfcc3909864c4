package registry

// For fuzzing.
var (
	ParseContentRange = parseContentRange
	Excerpt           = excerpt
)
