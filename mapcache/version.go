package mapcache

// maxMapVersion is the largest Map-Version Number, 12 bits.
const maxMapVersion = 1<<12 - 1

// NextMapVersion returns the Map-Version Number of the next version of a mapping
// (RFC 9302 §6): one more, around after 4095 to 1. 0 is the Null Map-Version, of
// a mapping without versions, and stays 0.
func NextMapVersion(v uint16) uint16 {
	switch v &= maxMapVersion; v {
	case 0:
		return 0
	case maxMapVersion:
		return 1
	}
	return v + 1
}

// NewerMapVersion reports whether version a is newer than b (RFC 9302 §6): ahead of it by
// at most half of the number space. The Null Map-Version is neither newer nor
// older than any.
func NewerMapVersion(a, b uint16) bool {
	a, b = a&maxMapVersion, b&maxMapVersion
	if a == 0 || b == 0 {
		return false
	}
	const half = (maxMapVersion + 1) / 2
	return a > b && a-b <= half || a < b && b-a > half
}
