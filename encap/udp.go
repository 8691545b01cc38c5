package encap

import (
	"log/slog"
	"net/netip"

	"github.com/xtrkit/xtrkit/mapcache"
)

// ChecksumPolicy says what UDP checksum packets in the LISP format carry. The
// kernel accepts packets with a zero checksum and with a right one, and drops
// others. LISP-GPE and VXLAN-GPE carry one whatever the policy, see
// UDPConfig.ZeroChecksum.
type ChecksumPolicy uint8

const (
	// ChecksumAuto sends zero, as RFC 9300 §5.3 recommends, where that costs
	// nothing: not where the kernel segments large sends, which needs a
	// checksum and is several times faster.
	ChecksumAuto ChecksumPolicy = iota
	// ChecksumZero always sends zero; the kernel then segments nothing.
	ChecksumZero
	// ChecksumComputed always sends a checksum.
	ChecksumComputed
)

// DefaultSourcePorts is the default of UDPConfig.SourcePorts.
const DefaultSourcePorts = 16

// UDPConfig configures NewUDP. The zero value listens at all addresses.
type UDPConfig struct {
	// Listen are the addresses to receive at. Without any, all addresses of
	// both families; then a missing IPv6 is no error.
	Listen []netip.Addr
	// Port is the UDP port to receive at; 0 is 4341.
	Port uint16
	// SourcePorts is how many source ports share the flows of one of our
	// locators (RFC 9300 §12), one socket each.
	SourcePorts int
	// Checksum is the UDP checksum of what is sent in the LISP format.
	Checksum ChecksumPolicy
	// ZeroChecksum are the locators to which LISP-GPE and VXLAN-GPE are sent
	// without a UDP checksum, for networks whose operator vouches for them (RFC
	// 9305 §4.3 and §4.3.1). To all others they carry one.
	ZeroChecksum []netip.Prefix
	// NATPort is the port that packets to locators behind a NAT leave from
	// (mapcache.Locator.NAT). 0 is one of the system's choice for each of our
	// locators, as an xTR uses on the way to its RTR (draft-ermagan-lisp-nat-traversal-19
	// §5.1.3). An RTR needs 4342 (§5.3.1), the port of the control plane, which
	// must share it: see control.ListenConfig. Where Port itself is used, that is
	// seen to here. On Linux only.
	NATPort uint16
	// Workers is how many sockets, with a goroutine each, share what arrives at
	// an address and port (SO_REUSEPORT, by outer source and source port); 0 is 1.
	Workers int
	// VXLANGPE also receives VXLAN-GPE, at port 4790.
	VXLANGPE bool
	// NoGRO keeps UDP_GRO off, for a data plane in the kernel (package ebpf), which
	// needs packets one by one.
	NoGRO bool
	// NoOffload keeps UDP_SEGMENT and UDP_GRO off.
	NoOffload bool
	// Logger; nil is silent.
	Logger *slog.Logger
}

func (cfg *UDPConfig) complete() {
	if cfg.Port == 0 {
		cfg.Port = dataPort
	}
	setDefault(&cfg.SourcePorts, DefaultSourcePorts)
	cfg.SourcePorts = max(1, cfg.SourcePorts)
	cfg.Workers = max(1, cfg.Workers)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

// zeroChecksum reports whether packets of a format go to a locator without a UDP
// checksum. lisp is what holds for the LISP format.
func (cfg *UDPConfig) zeroChecksum(lisp bool, f mapcache.Format, remote netip.Addr) bool {
	if f == mapcache.FormatLISP {
		return lisp
	}
	for _, p := range cfg.ZeroChecksum {
		if p.Contains(remote) {
			return true
		}
	}
	return false
}

// sourcePort spreads flows over n source ports. The multiplication keeps the
// choice apart from those that the low bits of the same hash have decided.
func sourcePort(hash uint32, n int) int {
	return int(uint64(hash*0x9e3779b1) * uint64(n) >> 32)
}
