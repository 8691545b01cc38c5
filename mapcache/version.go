package mapcache

import "github.com/xtrkit/xtrkit/lisp"

// maxMapVersion is the largest Map-Version Number, 12 bits.
const maxMapVersion = 1<<12 - 1

// NewerMapVersion reports whether version a is newer than b (RFC 9302 §6): ahead of it by
// at most half of the number space. The Null Map-Version is neither newer nor
// older than any.
func NewerMapVersion(a, b uint16) bool {
	a, b = a&maxMapVersion, b&maxMapVersion
	return a != lisp.NullMapVersion && b != lisp.NullMapVersion && lisp.CompareMapVersions(a, b) > 0
}
