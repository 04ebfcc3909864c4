package schedule

// MaxParts is how many uploads are held the bytes of.
const MaxParts = maxParts
