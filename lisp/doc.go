// Package lisp is the wire format of LISP, the Locator/ID Separation Protocol:
// control messages (RFC 9301), the data header (RFC 9300) and the
// authentication of registrations. It depends on the standard library only.
//
// Parse takes any control message apart, and every message has AppendBinary to
// build one:
//
//	m, err := lisp.Parse(payload) // what came to UDP port 4342
//	if err != nil {
//		return err // a *lisp.DecodeError: which message, field and octet
//	}
//	switch m := m.(type) {
//	case *lisp.MapRegister:
//		if err := lisp.Verify(payload, key); err != nil {
//			return err
//		}
//	case *lisp.EncapsulatedControl:
//		inner, err := m.Inner()
//	}
//
// The wire is kept as it came: reserved bits, host bits beyond a mask,
// addresses that are not understood and octets behind the message survive, so
// that a decoded message encodes to the octets it came from. Nothing is masked
// and no IPv4-mapped address is unmapped; other packages do that at their API.
// Decoding takes time and memory in proportion to the input, whatever the input
// says about itself.
//
// # What is in
//
// Map-Request, Map-Reply, Map-Register, Map-Notify, Map-Notify-Ack and the
// Encapsulated Control Message with its inner packet (RFC 9301); addresses of
// AFI 0, 1 and 2 and the Instance-ID LCAF (RFC 8060 §4.1); authentication with
// HMAC-SHA-1-96, HMAC-SHA-256-128 and HMAC-SHA-256-128+HKDF-SHA256; the data
// header (RFC 9300 §5.3).
//
// # What is not
//
// Messages of other types parse to Raw. MAC addresses, distinguished names and
// LCAFs other than Instance-ID are kept as octets (Address.LCAF). The
// authentication data of LISP-SEC and of RTRs is delimited but not taken apart.
//
// # Concurrency
//
// Functions are safe for concurrent use. Messages and records are plain data
// for one goroutine at a time; Address and DataHeader are immutable values.
package lisp
