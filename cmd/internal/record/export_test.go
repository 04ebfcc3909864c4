package record

// For tests.
var RemoveLink = removeLink
