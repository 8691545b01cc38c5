package mapcache

import (
	"fmt"
	"slices"

	"github.com/xtrkit/xtrkit/lisp"
)

// Format is how packets to a locator are encapsulated.
type Format uint8

// Encapsulation formats.
const (
	FormatLISP     Format = iota // RFC 9300, IP only
	FormatGPE                    // LISP-GPE (RFC 9305): what follows is said by a Next Protocol
	FormatVXLANGPE               // VXLAN-GPE: likewise, Instance ID as VNI
	numFormats
)

var formatNames = [numFormats]string{"lisp", "lisp-gpe", "vxlan-gpe"}

// String returns the name of the format: lisp, lisp-gpe or vxlan-gpe.
func (f Format) String() string {
	if f < numFormats {
		return formatNames[f]
	}
	return fmt.Sprintf("format(%d)", uint8(f))
}

// MarshalText returns the name of the format. It fails for a value without one.
func (f Format) MarshalText() ([]byte, error) {
	if f >= numFormats {
		return nil, fmt.Errorf("mapcache: %w: %v", ErrInvalid, f)
	}
	return []byte(f.String()), nil
}

// UnmarshalText reads a name of [Format.String]. It fails with ErrInvalid for any other.
func (f *Format) UnmarshalText(b []byte) error {
	i := slices.Index(formatNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("mapcache: %w: no encapsulation format %q", ErrInvalid, b)
	}
	*f = Format(i)
	return nil
}

// Port returns the UDP port that IANA assigned to the format: 4341 for LISP and
// LISP-GPE, 4790 for VXLAN-GPE.
func (f Format) Port() uint16 {
	if f == FormatVXLANGPE {
		return lisp.VXLANGPEPort
	}
	return lisp.DataPort
}
