package ebpf

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// What the kernel makes of large sends is on the wire as it should be: tshark finds
// nothing malformed and no wrong checksum, and sees inner packets.
func TestCapture(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if os.Getenv("XTRKIT_REQUIRE_TSHARK") == "1" {
		require.NoError(t, err)
	}
	p := newPair(t, netlab.LinkConfig{NoOffload: true}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, nil)
	file := filepath.Join(t.TempDir(), "b.pcapng")
	capture, err := p.link.B.Host.Capture(file)
	require.NoError(t, err)
	for _, f := range families {
		exchange(t, p.link.A.Host, p.link.B.Host, f.a, f.b, 1000)
		transfer(t, p.link.A.Host, p.link.B.Host, f.a, f.b, 1<<20)
	}
	require.NoError(t, capture.Stop())
	for _, n := range p.nodes {
		s := n.stats()
		assert.Equal(t, s.Encapsulated, s.KernelEncapsulated)
	}
	if tshark == "" {
		return // the rest is for where it is
	}
	out, err := exec.Command(tshark, "-r", file, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-Y", "udp.dstport == 4341", "-T", "fields", "-e", "frame.number", "-e", "_ws.malformed",
		"-e", "ip.checksum.status", "-e", "udp.checksum.status", "-e", "tcp.checksum.status", "-e", "frame.len", "-e", "tcp.checksum").Output()
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Greater(t, len(lines), 4*700)
	for _, line := range lines {
		f := strings.Split(line, "\t")
		require.Len(t, f, 7)
		if f[6] == "0xffff" {
			f[4] = "1" // what Linux writes where the sum is 0, to TCP as to UDP
		}
		bad := f[1] != "" || len(f[5]) > 4 // one packet for each segment
		for _, status := range f[2:5] {
			bad = bad || slices.Contains(strings.Split(status, ","), "0") || strings.Contains(status, "Bad")
		}
		require.False(t, bad, "%q", f)
	}
}
