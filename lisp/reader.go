package lisp

import (
	"encoding/binary"
	"fmt"
)

// reader walks a message. The first failure sticks: all later reads return zero
// values, so a decoder may read a run of fields and look at err once, but must
// look at it in every loop.
type reader struct {
	b       []byte
	off     int
	message string
	err     error
}

func (r *reader) fail(field string, off int, err error) {
	if r.err == nil {
		r.err = &DecodeError{Message: r.message, Field: field, Offset: off, Err: err}
	}
}

// take returns the next n octets, or nil and fails. A zero n never fails.
func (r *reader) take(field string, n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b)-r.off {
		r.fail(field, r.off, ErrTruncated)
		return nil
	}
	b := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return b
}

func (r *reader) uint32(field string) uint32 {
	b := r.take(field, 4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (r *reader) nonce() Nonce {
	b := r.take("Nonce", 8)
	if b == nil {
		return 0
	}
	return Nonce(binary.BigEndian.Uint64(b))
}

// address reads an AFI and the address behind it into a.
func (r *reader) address(field string, a *Address) {
	if r.err != nil {
		return
	}
	n, err := a.decode(r.b[r.off:])
	if err != nil {
		r.fail(field, r.off, err)
		return
	}
	r.off += n
}

// checkMask fails if the mask-len at off is more than the bits of the address
// that was read for it.
func (r *reader) checkMask(field string, off int, maskLen uint8, a Address) {
	if r.err == nil && int(maskLen) > a.maskBits() {
		r.fail(field, off, fmt.Errorf("%d for %s: %w", maskLen, a, ErrMalformed))
	}
}

// rest returns what is left, nil when nothing is.
func (r *reader) rest() []byte {
	if r.err != nil || r.off == len(r.b) {
		return nil
	}
	b := r.b[r.off:len(r.b):len(r.b)]
	r.off = len(r.b)
	return b
}

// grow returns s with one more element, reusing what an earlier decode left
// behind it (and the slices inside that).
func grow[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}
