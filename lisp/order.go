package lisp

import (
	"cmp"
	"slices"
)

// Compare orders addresses as locators in a record are ordered: by AFI, then by
// address or, for an LCAF, by type and then by its octets (RFC 9301 §5.5,
// RFC 8060 §3). It returns -1, 0 or +1, and 0 only for equal addresses.
func (a Address) Compare(b Address) int {
	if c := cmp.Compare(a.afi, b.afi); c != 0 {
		return c
	}
	if a.afi != AFILCAF {
		if c := a.ip.Compare(b.ip); c != 0 {
			return c
		}
		return cmp.Compare(a.raw, b.raw)
	}
	if a.ip.IsValid() && b.ip.IsValid() && a.iidMask == b.iidMask && a.ip.Is4() == b.ip.Is4() {
		return cmp.Or(cmp.Compare(a.iid, b.iid), a.ip.Compare(b.ip))
	}
	x, _ := a.lcaf()
	y, _ := b.lcaf()
	return cmp.Or(cmp.Compare(x[4], y[4]), slices.Compare(x, y))
}

// SortLocators puts locators in the order in which a record must have them
// (RFC 9301 §5.5). Equal ones stay in the order that they had.
func SortLocators(locators []RLOCRecord) {
	slices.SortStableFunc(locators, func(a, b RLOCRecord) int { return a.RLOC.Compare(b.RLOC) })
}

// SortRecords puts records in the order of their EIDs and mask lengths, and the
// locators of each in theirs, so that equal sets of records have equal encodings.
func SortRecords(records []EIDRecord) {
	for i := range records {
		SortLocators(records[i].Locators)
	}
	slices.SortStableFunc(records, func(a, b EIDRecord) int {
		return cmp.Or(a.EID.Compare(b.EID), cmp.Compare(a.MaskLen, b.MaskLen))
	})
}
