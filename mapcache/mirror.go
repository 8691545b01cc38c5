package mapcache

// What is in this file is for data planes that mirror the cache somewhere else, as
// in the kernel, and choose locators there exactly as a View does.

// Share says which flows an RLOC of a mapping gets, as a table that a data plane
// can use without knowing the rest: of the RLOCs of one Priority, in their order,
// the first with hash*Of>>32 < End has the flow.
type Share struct {
	// Usable: Priority, the R bit and the address allow packets to it. An RLOC
	// that is not keeps its flows, which have to go elsewhere.
	Usable bool
	End    uint16 // 0: it has no flows
	Of     uint16 // at most 256, the same for all of a Priority
}

// Shares returns the Share of each RLOC of a mapping. A flow goes to the RLOC
// that has it of the lowest Priority with a usable one. If that is not usable or
// down, the same is tried with the lowest Priority that has a usable one which is
// not down; and if that fails too, the flow goes to the one of these with the best
// score: the lowest of -log2((jhash(flow hash, Salt)+1)/2^32)/Weight by
// LogTable, where those of Weight 0 come last and count as 1.
func Shares(rlocs []RLOC) []Share {
	members := make([]member, len(rlocs))
	for i, r := range rlocs {
		members[i] = member{
			priority: r.Priority, weight: r.Weight, down: r.Down,
			never: !r.Locator.normal().encapsulable(),
		}
	}
	shares := make([]Share, len(rlocs))
	for i, m := range members {
		d := divide(members, m.priority)
		shares[i].Usable = m.usable()
		if d.n == 0 || d.weight(m) == 0 {
			continue
		}
		seen := 0
		for _, before := range members[:i+1] {
			seen += d.weight(before)
		}
		shares[i].End, shares[i].Of = uint16(d.end(seen)), uint16(d.n)
	}
	return shares
}

// Salt is what tells the locator apart from others in the score of Shares.
func (l Locator) Salt() uint32 { return l.normal().salt() }

// Salt is what tells the locator apart from others in the score by which
// ChooseLocal chooses, which is that of Shares.
func (l Local) Salt() uint32 { return Locator{Addr: l.Addr.Unmap(), IfIndex: l.IfIndex}.salt() }

// LogTable returns log2(1+i/256) in units of 2^-16, for i up to 256: what the
// score of Shares is interpolated from. The logarithm of 2^e * (1 + f/2^32) is
// e<<16 + t[i] + ((t[i+1]-t[i])*(f%2^24))>>24, where i is f>>24.
func LogTable() (t [257]uint32) {
	for i, v := range log2Table {
		t[i] = uint32(v)
	}
	return t
}
