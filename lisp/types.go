package lisp

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
)

// Well-known UDP ports (RFC 9300 §5.3, RFC 9301 §4).
const (
	DataPort    = 4341 // encapsulated user packets
	ControlPort = 4342 // control messages
)

// Type is the message type in the first four bits of a control message (RFC 9301 §5.1).
type Type uint8

// Message types.
const (
	TypeMapRequest          Type = 1  // RFC 9301 §5.2
	TypeMapReply            Type = 2  // RFC 9301 §5.4
	TypeMapRegister         Type = 3  // RFC 9301 §5.6
	TypeMapNotify           Type = 4  // RFC 9301 §5.7
	TypeMapNotifyAck        Type = 5  // RFC 9301 §5.7
	TypeMapReferral         Type = 6  // RFC 8111 §6.4
	TypeInfo                Type = 7  // draft-ermagan-lisp-nat-traversal §4.1
	TypeEncapsulatedControl Type = 8  // RFC 9301 §5.8
	TypeSharedExtension     Type = 15 // RFC 9304
)

// Nonce is the 64-bit value that pairs an answer with its question, or orders
// Map-Registers (RFC 9301 §5.2, §5.6).
type Nonce uint64

func (n Nonce) String() string { return fmt.Sprintf("0x%016x", uint64(n)) }

// XTRID is the 128-bit identifier of one xTR of a site (RFC 9301 §5.6).
type XTRID [16]byte

func (x XTRID) String() string { return fmt.Sprintf("%x", x[:]) }

// SiteID is the 64-bit identifier shared by the xTRs of a site (RFC 9301 §5.6).
type SiteID uint64

// Datagram is one UDP datagram on its way into or out of a protocol core.
//
// An invalid Local address means that the sender of the datagram does not care
// which address it leaves from; Local's port is still meaningful. IfIndex is 0
// when the interface is unknown or does not matter. Bytes are owned as the
// function that hands the datagram over says.
type Datagram struct {
	Local, Remote netip.AddrPort
	IfIndex       int
	Bytes         []byte
}

// MarshalText returns the nonce as String prints it, so that JSON does not make
// a floating-point number of it.
func (n Nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads a number in decimal, or in hexadecimal behind 0x.
func (n *Nonce) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 0, 64)
	if err != nil {
		return fmt.Errorf("lisp: nonce %q: %w", text, ErrMalformed)
	}
	*n = Nonce(v)
	return nil
}

// MarshalText returns the identifier as 32 hexadecimal digits.
func (x XTRID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, x[:]), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (x *XTRID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(x) {
		return fmt.Errorf("lisp: xTR-ID %q: not 32 hexadecimal digits: %w", text, ErrMalformed)
	}
	*x = XTRID(b)
	return nil
}
