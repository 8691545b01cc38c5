package lisp

import (
	"errors"
	"fmt"
)

// The reasons why something cannot be decoded, encoded or believed. They are
// what errors.Is looks for; control messages wrap them in a DecodeError.
var (
	// ErrTruncated: the input ends before what its own fields promise.
	ErrTruncated = errors.New("truncated")
	// ErrMalformed: a field holds a value that the protocol does not allow.
	ErrMalformed = errors.New("malformed")
	// ErrUnsupported: well formed as far as can be told, but of a kind that this
	// package cannot delimit or compute, such as an unknown address family.
	ErrUnsupported = errors.New("unsupported")
	// ErrAuth: the authentication data is not what the key demands.
	ErrAuth = errors.New("authentication failed")
)

// DecodeError says where a control message could not be decoded. Err wraps one
// of ErrTruncated, ErrMalformed and ErrUnsupported.
type DecodeError struct {
	Message string // the message, such as "Map-Reply"
	Field   string // the field as the RFC names it
	Offset  int    // octets from the start of the message
	Err     error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("lisp: %s: %s at octet %d: %v", e.Message, e.Field, e.Offset, e.Err)
}

// Unwrap returns the reason.
func (e *DecodeError) Unwrap() error { return e.Err }

// encodeError says which field of a message has a value that does not fit the wire.
func encodeError(message, field, format string, args ...any) error {
	return fmt.Errorf("lisp: %s: %s: %s: %w", message, field, fmt.Sprintf(format, args...), ErrMalformed)
}
