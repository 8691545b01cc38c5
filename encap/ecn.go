package encap

// ECN codepoints, the low two bits of the traffic class (RFC 3168 §5).
const (
	ecnNotECT = 0
	ecnECT1   = 1
	ecnECT0   = 2
	ecnCE     = 3
	ecnMask   = 3
)

// ecnDrop marks the one combination that must be dropped.
const ecnDrop = 0xff

// ecnDecap is RFC 6040 Figure 4: the ECN field to forward, by the arriving
// inner field (row) and the arriving outer field (column), both in codepoint
// order: Not-ECT, ECT(1), ECT(0), CE.
var ecnDecap = [4][4]uint8{
	ecnNotECT: {ecnNotECT, ecnNotECT, ecnNotECT, ecnDrop},
	ecnECT1:   {ecnECT1, ecnECT1, ecnECT1, ecnCE},
	ecnECT0:   {ecnECT0, ecnECT1, ecnECT0, ecnCE},
	ecnCE:     {ecnCE, ecnCE, ecnCE, ecnCE},
}

// ecnOdd are the combinations that no tunnel ingress produces (marked as
// currently unused in RFC 6040 Figure 4); RFC 6040 §4.2 wants them noticed.
var ecnOdd = [4][4]bool{
	ecnNotECT: {ecnECT1: true, ecnECT0: true, ecnCE: true},
	ecnECT1:   {ecnECT0: true},
	ecnCE:     {ecnECT1: true},
}

// decapTOS merges the traffic class of the outer header into the inner one: the
// DSCP of the outer header (RFC 9300 §5.3) and the ECN field of RFC 6040 §4.2.
// ok is false when the packet must be dropped, odd is true for a combination
// that no tunnel ingress produces.
func decapTOS(innerTOS, outerTOS uint8) (tos uint8, odd, ok bool) {
	ecn := ecnDecap[innerTOS&ecnMask][outerTOS&ecnMask]
	odd = ecnOdd[innerTOS&ecnMask][outerTOS&ecnMask]
	if ecn == ecnDrop {
		return 0, odd, false
	}
	return outerTOS&^ecnMask | ecn, odd, true
}

// decapTTL is the TTL or hop limit of the inner packet after decapsulation: the
// smaller of the two (RFC 9300 §5.3), so that loops end.
func decapTTL(innerTTL, outerTTL uint8) uint8 { return min(innerTTL, outerTTL) }
