package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const captures = "../../lisp/testdata/oor/"

func dump(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return stdout.String(), stderr.String(), code
}

func TestLines(t *testing.T) {
	out, errOut, code := dump(t, "-key", "secret", captures+"01-map-register-notify-v4eid.pcap", captures+"05-rloc-probe-v4eid.pcap")
	require.Zero(t, code, errOut)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 4)
	assert.Regexp(t, `^\d\d:\d\d:\d\d\.\d{6} 10\.0\.2\.2:4342 > 10\.0\.1\.2:4342 Map-Register want-map-notify nonce 0x3fefea7bbfebcf3e .* \[digest right\]$`, lines[0])
	assert.Contains(t, lines[1], "Map-Notify")
	assert.Contains(t, lines[2], "Map-Request probe")
	assert.Equal(t, "4 packets: 4 messages, 0 data, 0 malformed; digests: 2 right, 0 wrong\n", errOut)

	out, errOut, code = dump(t, "-key", "other", captures+"01-map-register-notify-v4eid.pcap")
	require.Zero(t, code)
	assert.Equal(t, 2, strings.Count(out, "[digest WRONG"))
	assert.Contains(t, errOut, "0 right, 2 wrong")
}

func TestAllCaptures(t *testing.T) {
	files, err := filepath.Glob(captures + "*.pcap")
	require.NoError(t, err)
	keys := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(keys, []byte("rtrkey\nsecret\n"), 0o600))
	out, errOut, code := dump(t, append([]string{"-data", "-key", "@" + keys}, files...)...)
	require.Zero(t, code, errOut)
	assert.Contains(t, errOut, " 0 malformed; digests: 80 right, 0 wrong")
	assert.Contains(t, out, "LISP iid 100: fd00:e1d:1::10 > fd00:e1d:2::10")
	assert.Contains(t, out, "LISP iid 16777215: Map-Notify")
	assert.Contains(t, out, "[digest right, digest right]", "of the RTR and of the site")
}

func TestJSON(t *testing.T) {
	out, _, code := dump(t, "-json", captures+"19-iid100-ecm-mrequest-mreply.pcap")
	require.Zero(t, code)
	var first struct {
		Src, Dst, Type, Text string
		Inner                []struct {
			Nonce   string
			Records []struct {
				MaskLen uint8
				EID     string
			}
		}
	}
	line, _, _ := strings.Cut(out, "\n")
	require.NoError(t, json.Unmarshal([]byte(line), &first))
	assert.Equal(t, "10.0.2.2:4342", first.Src)
	assert.Equal(t, "ECM", first.Type)
	require.Len(t, first.Inner, 1)
	assert.Equal(t, "0x7ff9fe6b37f9f10c", first.Inner[0].Nonce)
	assert.Equal(t, "[100]172.16.2.10", first.Inner[0].Records[0].EID)
}

func TestTree(t *testing.T) {
	out, _, code := dump(t, "-v", captures+"38-nat-info-request-reply.pcap")
	require.Zero(t, code)
	for _, s := range []string{
		"  Info:\n    Reserved: 0\n", "    EID: 172.16.3.3\n", "      Algorithm: hmac-sha-1-96\n", "      RTRs[0]: 10.0.4.2\n", "      ETRPort: ",
	} {
		assert.Contains(t, out, s)
	}
}

// writeNg writes a pcapng file with UDP datagrams to port 4342.
func writeNg(t *testing.T, payloads ...[]byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.pcapng")
	f, err := os.Create(file)
	require.NoError(t, err)
	defer f.Close()
	w, err := pcapgo.NewNgWriter(f, layers.LinkTypeRaw)
	require.NoError(t, err)
	for _, payload := range payloads {
		ip := &layers.IPv4{Version: 4, TTL: 1, Protocol: layers.IPProtocolUDP, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
		udp := &layers.UDP{SrcPort: 5000, DstPort: 4342}
		require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
		b := gopacket.NewSerializeBuffer()
		opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
		require.NoError(t, gopacket.SerializeLayers(b, opts, ip, udp, gopacket.Payload(payload)))
		require.NoError(t, w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(b.Bytes()), Length: len(b.Bytes())}, b.Bytes()))
	}
	require.NoError(t, w.Flush())
	return file
}

func TestMalformed(t *testing.T) {
	file := writeNg(t, []byte{0x20, 0, 0, 1}, []byte("not LISP? one of type 6"), bytes.Repeat([]byte{0xff}, 30))
	out, errOut, code := dump(t, file)
	require.Zero(t, code, errOut)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 3)
	assert.Contains(t, lines[0], "192.0.2.1:5000 > 192.0.2.2:4342 [malformed: lisp: Map-Reply: Nonce at octet 4: truncated]")
	assert.Contains(t, lines[1], "malformed: lisp: Map-Referral")
	assert.Contains(t, lines[2], "Shared-Extension sub-type 4095")
	assert.Contains(t, errOut, "3 packets: 1 messages, 0 data, 2 malformed")
	out, _, _ = dump(t, "-json", file)
	assert.Contains(t, out, `"error":"lisp: Map-Reply: Nonce at octet 4: truncated"`)
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{{}, {"-x"}, {"-i", "eth0", "file"}, {"-key", "@/no/such/file", "x"}} {
		_, errOut, code := dump(t, args...)
		assert.Equal(t, 2, code, args)
		assert.Contains(t, errOut, "(see lispdump -help)\n")
		assert.Equal(t, 1, strings.Count(errOut, "\n"))
	}
	_, errOut, code := dump(t, "/no/such/file")
	assert.Equal(t, 1, code)
	assert.Contains(t, errOut, "/no/such/file")
	_, _, code = dump(t, "-")
	assert.Equal(t, 1, code, "an empty standard input")
	out, _, code := dump(t, "-h")
	assert.Zero(t, code)
	assert.Contains(t, out, "Usage: lispdump")
	_, _, code = dump(t, "-i", "no-such-interface")
	assert.Equal(t, 1, code)
}
