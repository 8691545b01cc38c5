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
	// the packets. Its first result is not used. It must not wait for a Read: who
	// reads writes ICMP errors, too.
	Write(bufs [][]byte, offset int) (int, error)
	// Close ends a waiting Read.
	Close() error
}

// VirtioDevice is a Device that may also exchange packets with the host as a
// network card does: segments of one large TCP or UDP send as one packet, and
// with checksums to be finished. The Forwarder then uses these methods instead
// of Read and Write, which saves most of the work for large sends. A TUN device
// with IFF_VNET_HDR is one.
type VirtioDevice interface {
	Device
	// HasVirtio reports whether the methods below work. It does not change.
	HasVirtio() bool
	// ReadVirtio is like Read, but for segments of a packet that stay in one
	// piece of up to 65535 octets: the 10 octets before bufs[i][offset] get
	// Linux's struct virtio_net_hdr, which says what there is to do.
	ReadVirtio(bufs [][]byte, sizes []int, offset int) (n int, err error)
	// WriteVirtio delivers one packet, gathered from parts: the first starts with
	// its virtio_net_hdr. It does not change or keep them.
	WriteVirtio(parts [][]byte) error
}

// virtioOf returns d if it has what VirtioDevice is about, else nil.
func virtioOf(d Device) VirtioDevice {
	if v, ok := d.(VirtioDevice); ok && v.HasVirtio() {
		return v
	}
	return nil
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
