package lisp

// NullMapVersion says that no Map-Version is present (RFC 9302 §6.1).
const NullMapVersion = 0

const mapVersions = 1 << 12

// CompareMapVersions says which of two Map-Versions (12 bits, neither of them
// NullMapVersion) is the newer one: +1 if a is, -1 if b is, 0 if they are equal.
// The numbers wrap around, and a distance of exactly half of them makes the
// greater number newer (RFC 9302 §6).
func CompareMapVersions(a, b uint16) int {
	switch {
	case a == b:
		return 0
	case a > b && a-b <= mapVersions/2 || a < b && b-a > mapVersions/2:
		return +1
	}
	return -1
}

// NextMapVersion returns the Map-Version after v. It is never NullMapVersion.
func NextMapVersion(v uint16) uint16 {
	v = (v + 1) % mapVersions
	if v == NullMapVersion {
		v++
	}
	return v
}
