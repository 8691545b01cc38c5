package encap

// Device is where inner packets come from and go to: a TUN interface, or
// anything that behaves like one. Package tun's Interface satisfies it, and so
// does an in-memory queue.
//
// The Forwarder reads from one goroutine and writes under a lock of its own, so
// a Device must only bear one Read and one Write at the same time, and a Close
// at any time.
type Device interface {
	// Name is the interface name, for messages.
	Name() string
	// MTU is the largest inner packet the device carries, in octets.
	MTU() int
	// BatchSize is how many packets one Read or Write takes at most. It does
	// not change.
	BatchSize() int
	// Read waits for packets. It puts packet i at bufs[i][offset:], its length
	// into sizes[i], and returns how many there are. It may return several
	// segments of one larger packet that the kernel handed over, and
	// n > 0 together with an error when only some were usable: that is not
	// fatal. An error with n == 0 ends the reader.
	Read(bufs [][]byte, sizes []int, offset int) (n int, err error)
	// Write delivers the packets at bufs[i][offset:]. It may use the octets
	// before offset and the spare capacity behind each packet, and may change
	// the packets. Its first result is not used.
	Write(bufs [][]byte, offset int) (int, error)
	// Close ends a waiting Read.
	Close() error
}

// Headroom is how many octets the Forwarder keeps free in front of every packet
// it reads from a Device or writes to one: room for a data header and for what
// a TUN device puts before a packet.
const Headroom = 64

// slotStride spaces the buffers of a batch. A power of two would map the start
// of every buffer to the same few cache sets.
const slotStride = 1<<16 + Headroom + 1600

// newSlots returns n buffers that each hold Headroom and the largest IP packet.
// Only the memory that packets touch becomes resident.
func newSlots(n int) [][]byte {
	slab := make([]byte, n*slotStride)
	slots := make([][]byte, n)
	for i := range slots {
		at := i * slotStride
		slots[i] = slab[at : at+slotStride : at+slotStride]
	}
	return slots
}
