package multihome

import "encoding/binary"

// attribute returns the value of a netlink attribute that follows the fixed part
// of a message, or nil.
func attribute(data []byte, fixed int, kind uint16) []byte {
	const header = 4
	fixed = (fixed + 3) &^ 3
	if fixed > len(data) {
		return nil
	}
	data = data[fixed:]
	for len(data) >= header {
		size := int(binary.NativeEndian.Uint16(data))
		if size < header || size > len(data) {
			return nil
		}
		if binary.NativeEndian.Uint16(data[2:])&0x3fff == kind {
			return data[header:size]
		}
		data = data[min((size+3)&^3, len(data)):]
	}
	return nil
}
