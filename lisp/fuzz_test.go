package lisp

import (
	"bytes"
	"testing"
)

func FuzzParse(f *testing.F) {
	for _, v := range loadVectors(f).Vectors {
		f.Add(unhex(f, v.Hex))
	}
	key := Key{Algorithm: AlgorithmHMACSHA1, Secret: []byte("lisp-test-key")}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkRoundTrip(t, b)
		in := bytes.Clone(b)
		_ = Verify(b, key)
		if !bytes.Equal(in, b) {
			t.Fatal("Verify changed the message")
		}
	})
}

// checkRoundTrip asserts what Parse promises for any input: an error or a
// message that encodes to the same octets, and the same again into a reused one.
func checkRoundTrip(t *testing.T, b []byte) {
	t.Helper()
	in := bytes.Clone(b)
	m, err := Parse(b)
	if err != nil {
		return
	}
	for range 2 {
		out, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%x: decoded but not encoded: %v", in, err)
		}
		if !bytes.Equal(in, out) {
			t.Fatalf("%x encoded as %x", in, out)
		}
		_ = m.String()
		_ = m.LogValue().String()
		if err := m.DecodeFromBytes(b); err != nil {
			t.Fatalf("%x: decoded once, not twice: %v", in, err)
		}
	}
	if e, ok := m.(*EncapsulatedControl); ok {
		if inner, err := e.Inner(); err == nil {
			checkRoundTrip(t, inner.Payload)
		}
	}
}
