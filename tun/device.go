package tun

import "errors"

// Headroom is how many octets Write needs, and overwrites, in front of each
// packet.
const Headroom = 10

// Device carries IP packets between the host and whoever reads and writes it. One
// goroutine may read and another write at the same time.
//
// The method set and its meaning are those of golang.zx2c4.com/wireguard/tun, as
// far as a data plane needs them.
type Device interface {
	// Name of the network interface.
	Name() string
	// MTU is the largest packet in octets that Read returns.
	MTU() int
	// BatchSize is how many packets one Read may return, and the best number for
	// one Write. It never changes.
	BatchSize() int
	// Read waits for packets, puts packet i into bufs[i][offset:] and its length
	// into sizes[i], and returns how many there are. len(bufs) and len(sizes)
	// must be BatchSize or more, and each buffer must hold offset + MTU octets.
	// After Close the error wraps os.ErrClosed; every error is final.
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	// Write sends the packets bufs[i][offset:]. offset must be Headroom or more.
	// The packets and what is before them may be changed, and packets may be
	// appended to each other within the capacity of bufs. It returns len(bufs)
	// and no error if the host took all packets; else the others were still
	// offered to it, and the number is 0, since it is not known which it took.
	Write(bufs [][]byte, offset int) (int, error)
	// Close unblocks Read. It is idempotent.
	Close() error
}

// Errors that Create and Cleanup return, wrapped with what they are about.
var (
	// ErrInUse says that another process has the device, or that the table or
	// the rule priorities hold something that is not ours.
	ErrInUse = errors.New("in use")
	// ErrConfig says that a Config makes no sense.
	ErrConfig = errors.New("invalid configuration")
)

// Marked is a device for packets with a firewall mark.
type Marked struct {
	Mark   uint32 // within Config.MarkMask; 0: all marks that have no device of their own
	Device Device
}

// Stats counts what a Device could not carry.
type Stats struct {
	ReadErrors  uint64 // packets from the host in a form that was not understood
	WriteErrors uint64 // calls of Write in which the host refused a packet
}
