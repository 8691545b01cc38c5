package lisp

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

// killers are datagrams of the kinds that stop implementations in use, as
// octets behind UDP. They are seeds for fuzzing too.
func killers(t testing.TB) map[string][]byte {
	t.Helper()
	cut := func(name string, n int) []byte { return vector(t, name)[:n] }
	edit := func(name string, f func(b []byte)) []byte {
		b := vector(t, name)
		f(b)
		return b
	}
	nested := []byte{0, 0}
	for range 40 {
		n := len(nested)
		nested = append([]byte{0x40, 3, 0, 0, 1, 0, byte(n >> 8), byte(n)}, nested...)
	}
	many := MapReply{Records: []EIDRecord{{EID: ip("192.0.2.0"), MaskLen: 24}}}
	for range 255 {
		many.Records[0].Locators = append(many.Records[0].Locators, RLOCRecord{Priority: 1, Weight: 1, RLOC: ip("203.0.113.1")})
	}
	manyLocators, _ := many.MarshalBinary()
	head := func(typ byte) []byte { return append([]byte{typ, 0, 0, 1}, make([]byte, 8)...) }
	return map[string][]byte{
		// OOR
		"Map-Register of 4 octets":       cut("map-register-sha1-20", 4),
		"Map-Request of 4 octets":        cut("map-request-v4", 4),
		"Map-Notify of 4 octets":         cut("map-notify", 4),
		"Info-Request of 4 octets":       cut("info-request", 4),
		"Map-Reply of 8 octets":          cut("map-reply-2loc", 8),
		"ECM with cut UDP header":        cut("ecm-map-request-v4", 4+20+5),
		"record count 255":               edit("map-reply-2loc", func(b []byte) { b[3] = 255 }),
		"record count 255 of a register": edit("map-register-sha1-20", func(b []byte) { b[3] = 255 }),
		"LCAF length 65535":              append(head(0x10), 0x40, 3, 0, 0, 2, 0x20, 0xff, 0xff, 0, 0, 0, 7, 0, 1),
		"LCAF length 0":                  append(head(0x10), 0x40, 3, 0, 0, 2, 0x20, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0),
		"LCAF type 40":                   append(head(0x10), 0x40, 3, 0, 0, 40, 0, 0, 2, 1, 2, 0, 1, 203, 0, 113, 1, 0, 32, 0, 1, 192, 0, 2, 1),
		"LCAF type 255":                  append(head(0x10), 0x40, 3, 0, 0, 255, 0, 0, 0, 0, 1, 203, 0, 113, 1, 0, 32, 0, 1, 192, 0, 2, 1),
		"ITR-RLOC of an unknown family":  edit("map-request-v4", func(b []byte) { b[19] = 99 }),
		"I bit without trailer":          edit("map-register-sha1-20", func(b []byte) { b[0] |= 2 }),
		"mask-len 255":                   edit("map-reply-2loc", func(b []byte) { b[17] = 255 }),
		"255 locators of one priority":   manyLocators,
		// lispers.net
		"name without NUL in an ECM":              append(head(0x10), 0, 17, 'a', 'b', 'c'),
		"SHA-1 with 32 octets":                    edit("map-register-sha256-32", func(b []byte) { b[13] = 1 }),
		"SHA-256 with 40 octets":                  edit("map-register-sha256-32", func(b []byte) { b[15] = 40 }),
		"Map-Notify-Ack of algorithm 7":           edit("map-notify-ack", func(b []byte) { b[13] = 7 }),
		"Map-Notify of algorithm 7":               edit("map-notify", func(b []byte) { b[13] = 7 }),
		"Map-Notify, SHA-1 with 12 octets":        edit("map-register-sha1-12", func(b []byte) { b[0] = 0x40 }),
		"Info-Request without host name":          vector(t, "info-request"),
		"Info-Request, host name without NUL":     bytes.TrimRight(vector(t, "info-request-lispersnet"), "\x00"),
		"Info-Request, host name not UTF-8":       edit("info-request-lispersnet", func(b []byte) { b[len(b)-2] = 0xff }),
		"Map-Notify of 255 records, cut":          edit("map-notify", func(b []byte) { b[3] = 255 }),
		"Map-Register of 20000 octets":            append(vector(t, "map-register-sha1-20"), make([]byte, 20000)...),
		"Map-Request with 32 ITR-RLOCs that lack": edit("map-request-v4", func(b []byte) { b[2] = 31 }),
		"AFI lists in each other, 40 deep":        append(append(head(0x10), nested...), 0, 0, 0, 0, 0, 0),
		"Map-Referral of nothing":                 bytes.Repeat([]byte{0x6f}, 60),
		// VPP
		"Map-Notify of 1 octet":               {0x40},
		"Map-Notify of no record":             edit("map-notify", func(b []byte) { b[3] = 0 }),
		"Map-Notify of an unknown Key ID":     edit("map-notify", func(b []byte) { b[12] = 99 }),
		"Map-Reply, locator of LCAF type 40":  edit("lcaf-3-as", func(b []byte) { b[bytes.Index(b, []byte{0x40, 3, 0, 0, 3})+4] = 40 }),
		"Map-Reply, locator of LCAF type 255": edit("lcaf-3-as", func(b []byte) { b[bytes.Index(b, []byte{0x40, 3, 0, 0, 3})+4] = 255 }),
		"SMR of nothing":                      {0x11},
		"SMR, truncated":                      cut("map-request-smr", 20),
		"SMR, AFI 0":                          append(append([]byte{0x11, 0, 0, 1}, make([]byte, 8)...), 0, 0, 0, 0, 0, 0, 0, 0),
		"SMR, mixed families":                 append(append([]byte{0x11, 0, 0, 1}, make([]byte, 8)...), 0, 1, 192, 0, 2, 1, 0, 1, 192, 0, 2, 1, 0, 128, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"empty":                               {},
		"all ones":                            bytes.Repeat([]byte{0xff}, 200),
		"at signs":                            bytes.Repeat([]byte{'@'}, 1400),
	}
}

// TestKillers: each is refused, or decodes and comes back as it was; and none
// passes for something authenticated.
func TestKillers(t *testing.T) {
	decodes := []string{
		"LCAF type 40", "LCAF type 255", "Map-Notify of an unknown Key ID",
		"Map-Reply, locator of LCAF type 40", "Map-Reply, locator of LCAF type 255", "255 locators of one priority", "SHA-1 with 32 octets",
		"Map-Notify-Ack of algorithm 7", "Map-Notify of algorithm 7", "Map-Notify, SHA-1 with 12 octets",
		"Info-Request without host name", "Info-Request, host name not UTF-8", "Map-Register of 20000 octets",
		"AFI lists in each other, 40 deep", "ECM with cut UDP header", "LCAF length 0", "Map-Notify of no record", "SMR, AFI 0", "SMR, mixed families", "all ones",
	}
	for name, b := range killers(t) {
		t.Run(name, func(t *testing.T) {
			checkRoundTrip(t, b)
			m, err := Parse(b)
			if slices.Contains(decodes, name) {
				assert.NoError(t, err)
			} else {
				assert.Error(t, err, "%v", m)
			}
			if name != "Info-Request without host name" { // it is signed
				assert.Error(t, Verify(b, Key{Algorithm: AlgorithmHMACSHA1, Secret: testKey}))
				assert.Error(t, Verify(b, Key{Algorithm: AlgorithmHMACSHA256, Secret: testKey}))
			}
			if m != nil {
				_ = Screen(m)
			}
			e := EncapsulatedControl{Packet: b}
			_, err = e.Inner()
			assert.Error(t, err)
		})
	}
}
