package lisp

import (
	"testing"
)

// benchmarked are the vectors that stand for their messages.
var benchmarked = []string{
	"map-request-v4", "map-reply-2loc", "map-register-sha256-16", "map-register-xtrid", "map-notify", "map-notify-ack",
	"map-referral-node", "info-request", "info-reply", "ecm-map-request-v4", "shared-ext",
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range benchmarked {
		octets := vector(b, name)
		m, err := Parse(octets)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(octets)))
			b.ReportAllocs()
			for b.Loop() {
				if err := m.DecodeFromBytes(octets); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range benchmarked {
		octets := vector(b, name)
		m, err := Parse(octets)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(octets)))
			b.ReportAllocs()
			buf := make([]byte, 0, 2048)
			for b.Loop() {
				if _, err := m.AppendBinary(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCopy copies the same octets, for comparison.
func BenchmarkCopy(b *testing.B) {
	for _, name := range benchmarked {
		octets := vector(b, name)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(octets)))
			buf := make([]byte, 0, 2048)
			for b.Loop() {
				buf = append(buf[:0], octets...)
			}
		})
	}
}

func BenchmarkDataHeader(b *testing.B) {
	octets := vector(b, "data-echo-iid")
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		var sum uint32
		for b.Loop() {
			h, err := ParseDataHeader(octets)
			if err != nil {
				b.Fatal(err)
			}
			iid, _ := h.InstanceID()
			sum += iid
		}
	})
	b.Run("put", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			PutDataHeader(octets, DataHeader{}.WithInstanceID(7))
		}
	})
}

func BenchmarkInner(b *testing.B) {
	var m EncapsulatedControl
	if err := m.DecodeFromBytes(vector(b, "ecm-map-request-v4")); err != nil {
		b.Fatal(err)
	}
	in, err := m.Inner()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Inner(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 2048)
		for b.Loop() {
			if _, err := AppendInner(buf, in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for name, key := range map[string]Key{
		"map-register-sha1-20":   {Algorithm: AlgorithmHMACSHA1},
		"map-register-sha256-16": {Algorithm: AlgorithmHMACSHA256},
		"map-register-hkdf":      {Algorithm: AlgorithmHMACSHA256HKDF},
	} {
		key.Secret = testKey
		octets := vector(b, name)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(octets)))
			b.ReportAllocs()
			for b.Loop() {
				if err := Verify(octets, key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
