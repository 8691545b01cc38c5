// Package lisp is the wire format of LISP, the Locator/ID Separation Protocol:
// control messages (RFC 9301), addresses (RFC 8060), the data header (RFC 9300)
// and everything that authenticates a message. It depends on the standard
// library only.
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
//   - Map-Request, Map-Reply, Map-Register, Map-Notify, Map-Notify-Ack and the
//     Encapsulated Control Message with its inner packet (RFC 9301, and the bits
//     that RFC 6830/6833 and peers in use have besides), Map-Referral with its
//     signatures (RFC 8111), Info-Request and Info-Reply
//     (draft-ermagan-lisp-nat-traversal, and the form of lispers.net), the Shared
//     Extension (RFC 9304); Raw for other types.
//   - Addresses of AFI 0, 1, 2, 6, 17, 16387 and 16389, all LCAF types of RFC 8060
//     and the Vendor-Specific one of RFC 9306, whose rules are Screen.
//   - Authentication with HMAC-SHA-1-96, HMAC-SHA-256-128 and
//     HMAC-SHA-256-128+HKDF-SHA256 (Key, Sign, Verify); LISP-SEC (RFC 9303: OTK,
//     EIDAD, VerifySecured); the authentication of a Map-Notify for an RTR.
//   - The data header (RFC 9300 §5.3), LISP-GPE with its shim headers (RFC 9305)
//     and VXLAN-GPE; Map-Version arithmetic (RFC 9302 §6).
//
// # What is not
//
// The key exchange and encryption of RFC 8061 (only its LCAF), RFC 9437
// subscriptions (only their bits), GPE extension headers other than shims. Of
// LCAF type 5 there is the layout of RFC 8060, not the later one of
// draft-ietf-lisp-geo. What a message asks a node to do is in other packages.
//
// # Concurrency
//
// Functions are safe for concurrent use. Messages and records are plain data
// for one goroutine at a time; Address and DataHeader are immutable values.
package lisp
