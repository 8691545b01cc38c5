package lisp

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// addSeeds adds the vectors, the captures and what stops other implementations.
func addSeeds(f *testing.F) {
	for _, v := range loadVectors(f).Vectors {
		f.Add(unhex(f, v.Hex))
	}
	for _, b := range killers(f) {
		f.Add(b)
	}
	for _, file := range []string{"32-nat-OLD-at-MS", "36-nat-NEW-at-MS", "19-iid100-ecm-mrequest-mreply"} {
		for _, d := range readPcap(f, "testdata/oor/"+file+".pcap") {
			f.Add(d.payload)
		}
	}
}

func FuzzParse(f *testing.F) {
	addSeeds(f)
	key := Key{Algorithm: AlgorithmHMACSHA1, Secret: testKey}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkRoundTrip(t, b)
		in := bytes.Clone(b)
		_ = Verify(b, key)
		_, _ = VerifySecured(b, itrOTK)
		_ = VerifyRTRAuthentication(b, key)
		if !bytes.Equal(in, b) {
			t.Fatal("verification changed the message")
		}
		if m, err := Parse(b); err == nil {
			_ = CheckSend(m)
			_ = Screen(m, 0x00000c)
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
	switch m := m.(type) {
	case *EncapsulatedControl:
		if inner, err := m.Inner(); err == nil {
			checkRoundTrip(t, inner.Payload)
		}
		var s ECMSecurity
		if s.DecodeFromBytes(m.Security) == nil {
			out, err := s.AppendBinary(nil)
			// The other reading of OTK Length does not survive.
			if err != nil || !bytes.Equal(out, m.Security) && m.Security[5] != 28 {
				t.Fatalf("%x encoded as %x: %v", m.Security, out, err)
			}
		}
	case *MapReply:
		var s ReplySecurity
		if s.DecodeFromBytes(m.Trailer) == nil {
			if out, err := s.AppendBinary(nil); err != nil || !bytes.Equal(out, m.Trailer) {
				t.Fatalf("%x encoded as %x: %v", m.Trailer, out, err)
			}
		}
	case *InfoReply:
		_, _ = m.Traversal()
	}
}

// FuzzAddress covers all LCAFs.
func FuzzAddress(f *testing.F) {
	for _, v := range loadVectors(f).Vectors {
		if i := bytes.Index(unhex(f, v.Hex), []byte{0x40, 0x03}); i >= 0 {
			f.Add(unhex(f, v.Hex)[i:])
		}
	}
	for _, s := range []string{
		"0000", "0001c0000201", "000220010db8000000000000000000000001", "0006020000000001", "4005020000000001", "00116100",
		"400300000100001c0001cb007101400300000e00000a000422612220" + "0000" + "0001cb007102",
	} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Address
		if a.UnmarshalBinary(b) != nil {
			return
		}
		out, err := a.MarshalBinary()
		if err != nil || !bytes.Equal(b, out) {
			t.Fatalf("%x encoded as %x: %v", b, out, err)
		}
		text, err := a.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var again Address
		if err := again.UnmarshalText(text); err != nil || again != a {
			t.Fatalf("%x: %q: %v", b, text, err)
		}
		if a.Compare(again) != 0 {
			t.Fatalf("%x differs from itself", b)
		}
		if len(a.String()) > 64*len(b)+200 {
			t.Fatalf("%d octets print as %d", len(b), len(a.String()))
		}
		_ = Screen(&MapReply{Records: []EIDRecord{{EID: a}}})
		l, err := a.LCAF()
		if err != nil {
			return
		}
		clean, err := LCAFAddress(l)
		if err != nil {
			t.Fatalf("%x: decoded but not encoded: %v", b, err)
		}
		twice, err := clean.LCAF()
		if err != nil || twice.String() != l.String() {
			t.Fatalf("%x: %v is %v when encoded: %v", b, l, twice, err)
		}
		if c, err := LCAFAddress(twice); err != nil || c != clean {
			t.Fatalf("%x: not canonical", b)
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"", "none", "192.0.2.1", "[7]2001:db8::1", "[7/0]192.0.2.1", "02:00:00:00:00:01", `"a"`, "afi-16387:000002"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		text, err := a.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := ParseAddress(string(text)); err != nil || a != b {
			t.Fatalf("%q: %q: %v", s, text, err)
		}
		out, err := a.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var c Address
		if err := c.UnmarshalBinary(out); err != nil || a != c {
			t.Fatalf("%q: %x: %v", s, out, err)
		}
	})
}

func FuzzDataHeader(f *testing.F) {
	for _, v := range loadVectors(f).Vectors {
		if v.UDPDst == DataPort {
			f.Add(unhex(f, v.Hex))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseDataHeader(b); err == nil {
			out := make([]byte, DataHeaderLen)
			PutDataHeader(out, h)
			if !bytes.Equal(out, b[:DataHeaderLen]) {
				t.Fatalf("%x encoded as %x", b, out)
			}
			_ = h.String()
		}
		if h, err := ParseVXLANGPEHeader(b); err == nil {
			out := make([]byte, DataHeaderLen)
			PutVXLANGPEHeader(out, h)
			if !bytes.Equal(out, b[:DataHeaderLen]) {
				t.Fatalf("%x encoded as %x", b, out)
			}
			_ = h.String()
		}
		for len(b) > 0 {
			h, n, err := ParseShimHeader(b)
			if err != nil {
				break
			}
			if out, err := h.AppendBinary(nil); err != nil || !bytes.Equal(out, b[:n]) {
				t.Fatalf("%x encoded as %x: %v", b[:n], out, err)
			}
			b = b[n:]
		}
	})
}
