package ebpf

import "github.com/xtrkit/xtrkit/encap"

// SlowReason says why a program left a packet to the slow path.
type SlowReason uint8

// Reasons for the slow path.
const (
	SlowHeader    SlowReason = iota // an IP header that is not as usual; padding; data in data; large segments that are in a tunnel already
	SlowMiss                        // no mapping is known in the kernel
	SlowEntry                       // a mapping without locators, a closed network, or a table is full
	SlowLocator                     // none is up, no route leads to it, or it wants a checksum
	SlowSize                        // does not fit the path, or the device
	SlowSource                      // the source is not an EID of ours, or not one of the outer source
	SlowFlags                       // the data header says something
	SlowInstance                    // control messages, or an instance without overlay
	SlowAggregate                   // several packets behind one outer header
	SlowFragment                    // outer fragments
	numSlowReasons
)

// NumSlowReasons is the length of Stats.Slow.
const NumSlowReasons = int(numSlowReasons)

var slowReasonNames = [numSlowReasons]string{
	"header", "miss", "entry", "locator", "size", "source", "flags", "instance", "aggregate", "fragment",
}

// String is a short name in lower case.
func (r SlowReason) String() string {
	if r < numSlowReasons {
		return slowReasonNames[r]
	}
	return "unknown"
}

// Stats is a snapshot of what both paths did.
type Stats struct {
	encap.Stats // of both paths together, but for Locators, which are the slow path's

	// Of these the kernel did.
	KernelEncapsulated, KernelDecapsulated encap.Counter
	KernelDrops                            [encap.NumDropReasons]uint64
	// Slow counts the packets that the kernel left to the slow path. Those that
	// were not LISP, or not for us, are not among them.
	Slow [NumSlowReasons]uint64

	Entries, Locators, Sets int    // in the kernel now
	Resyncs                 uint64 // times that the kernel's copy was made again
	AllSlow                 bool   // all packets take the slow path: a closed network, or a table is full
}
