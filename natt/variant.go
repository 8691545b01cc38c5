package natt

import (
	"errors"
	"fmt"
)

// Variant is a protocol for NAT traversal. A node, its Map-Servers and its RTRs
// must agree on it: nothing in the messages tells which one is meant.
type Variant uint8

// Variants.
const (
	// Draft19 is draft-ermagan-lisp-nat-traversal-19.
	Draft19 Variant = iota
	// Old is what OOR and LISPmob speak: drafts -00 to -03 and later ones in one.
	// A Map-Register by an RTR has the R bit (0x01000000), beside the one of its
	// ECM, and the digest covers the xTR-ID.
	Old
	// LispersNet is what lispers.net 0.607 does (draft-farinacci-lisp-lispers-net-nat-04,
	// by and large): Info-Requests with a host name and without authentication,
	// every 15 s, to Map-Servers and RTRs; Map-Registers straight to the Map-Server.
	// Whoever can guess a host name can take over what comes from the RTR: it is
	// for networks that have nothing else.
	LispersNet
	numVariants
)

// ErrVariant is the cause of a variant that doesn't exist.
var ErrVariant = errors.New("natt: unknown variant")

var variantNames = [numVariants]string{"draft-19", "old", "lispers.net"}

func (v Variant) String() string {
	if v < numVariants {
		return variantNames[v]
	}
	return fmt.Sprintf("Variant(%d)", uint8(v))
}

// MarshalText returns the name: draft-19, old or lispers.net.
func (v Variant) MarshalText() ([]byte, error) {
	if v >= numVariants {
		return nil, fmt.Errorf("%w: %d", ErrVariant, uint8(v))
	}
	return []byte(v.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (v *Variant) UnmarshalText(text []byte) error {
	for i, name := range variantNames {
		if string(text) == name {
			*v = Variant(i)
			return nil
		}
	}
	return fmt.Errorf("%w: %q", ErrVariant, text)
}
