package encap

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

const (
	dataPort      = lisp.DataPort
	dataHeaderLen = lisp.DataHeaderLen

	// overhead4 and overhead6 are H of RFC 9300 §7.1: outer IP, UDP and data
	// header.
	overhead4 = ipv4HeaderLen + udpHeaderLen + dataHeaderLen
	overhead6 = ipv6HeaderLen + udpHeaderLen + dataHeaderLen
)

// Defaults of Config.
const (
	DefaultMTU        = 1500
	DefaultHoldTime   = 4 * time.Second
	DefaultHoldPerEID = 32
	DefaultHoldTotal  = 1024
	DefaultHoldOctets = 4 << 20
	DefaultICMPRate   = 100
)

// Overhead is how many octets encapsulation adds to a packet that is sent to a
// locator of the given address: 36 over IPv4, 56 over IPv6 (H of RFC 9300
// §7.1).
func Overhead(locator netip.Addr) int {
	if locator.Is4() || locator.Is4In6() {
		return overhead4
	}
	return overhead6
}

// Overlay is one instance of the EID space: a device whose packets are
// tunnelled, and the EIDs behind it.
type Overlay struct {
	// InstanceID is sent and expected with every packet; 0 for none.
	InstanceID uint32
	// Device is where the packets of the instance come from and go to. The
	// Forwarder closes it. It may be nil with Relay.
	Device Device
	// Queues are further queues of Device: each is read by a goroutine of its
	// own, and what arrives is spread over all. The Forwarder closes them.
	Queues []Device
	// EIDs are the prefixes behind Device. But for the proxy roles, only packets
	// from them are encapsulated, and only packets to them are decapsulated.
	EIDs []netip.Prefix
	// ProxyITR also encapsulates packets that come from elsewhere: from sites
	// without LISP to EIDs (RFC 6832 §5).
	ProxyITR bool
	// ProxyETR are prefixes of LISP sites for which Device leads to the rest of
	// the world: packets from them are decapsulated wherever they go, and the
	// host behind Device forwards them (RFC 6832 §6).
	ProxyETR []netip.Prefix
	// Relay makes the Forwarder the data plane of an RTR: what arrives for other
	// EIDs than those behind Device is sent on, if the mapping of its source or
	// its destination has a locator behind a NAT (mapcache.Locator.NAT), which is
	// how the control plane says that an EID is registered here.
	Relay bool
	// Ethernet gets the Ethernet frames that arrive for the instance by LISP-GPE
	// or VXLAN-GPE; nil drops them. It is called by the goroutine that receives
	// and must not keep frame.
	Ethernet func(remote netip.AddrPort, frame []byte)
}

// Config configures a Forwarder. The zero value of a field means its default; it
// must not be changed after NewForwarder.
type Config struct {
	Overlays []Overlay // at least one, each with an InstanceID of its own

	// View returns the published map-cache; mandatory. It is called once per
	// batch of packets, from several goroutines.
	View func() *mapcache.View
	// Meter makes what counts packets by map-cache entry: NewMeter of the map-cache. It is
	// called for each reader of a device and each receiver. Packets that leave are
	// counted for the entry they leave by, those that arrive for the entry of their inner
	// source, which costs a lookup for each one that has another source than the one
	// before. nil: only locators have counters.
	Meter func(mapcache.Direction) *mapcache.Meter
	// FlowSeed is the seed of the flow hash, the same as the map-cache's.
	FlowSeed uint32

	// Underlay carries encapsulated packets; mandatory. The Forwarder closes it.
	Underlay Underlay
	// Native forwards packets that are not for an EID; nil drops them. The
	// Forwarder closes it.
	Native NativeSender
	// Control gets what arrives on the data port for instance 0xFFFFFF, data
	// header included; nil drops it. It is called by the goroutine that
	// receives and must not keep d.Bytes.
	Control func(d lisp.Datagram)
	// BareControl has Control also get the Info-Replies and Map-Notifies that come
	// from port 4342 without a data header: NAT traversal with lispers.net
	// (natt.LispersNet) has them.
	BareControl bool

	// ICMP receives ICMP errors about the outer packets: they say what path MTU a
	// locator has and which is not reachable. The Forwarder closes the receivers.
	ICMP []ICMPReceiver

	// Policy, if it is not nil, is asked by which uplink packets leave, encapsulated
	// or (by an UplinkSender) natively: once for packets of a flow with the same DSCP that come together. It
	// is called from several goroutines, must not keep the packet, and must be fast.
	Policy func(*PolicyPacket) Uplink

	// SourceCheck says whether arriving packets must fit the map-cache.
	SourceCheck SourceCheck

	// KeepDeviceMTU leaves the MTU of the devices alone. Else a device that has a
	// method SetMTU(int) error gets the largest that needs no fragmentation on
	// the links of our locators.
	KeepDeviceMTU bool

	// MTU is the largest outer packet sent, in octets (L of RFC 9300 §7.1). The
	// interface's MTU counts if it is smaller, and alone if this is 0; where
	// neither is known it is DefaultMTU.
	MTU int

	// Packets without a mapping wait HoldTime for one: at most HoldPerEID to
	// one destination, HoldTotal packets and HoldOctets octets in all.
	// Negative values hold nothing.
	HoldTime                          time.Duration
	HoldPerEID, HoldTotal, HoldOctets int

	// Closed turns on what is for closed networks only.
	Closed Closed

	// ICMPRate bounds the ICMP errors about packets that were not forwarded,
	// per second; negative sends none.
	ICMPRate int

	// Logger gets what an operator should know; nil is silent. Nothing is
	// logged per packet.
	Logger *slog.Logger
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (cfg *Config) complete() error {
	switch {
	case cfg.View == nil:
		return errors.New("no View")
	case cfg.Underlay == nil:
		return errors.New("no Underlay")
	case len(cfg.Overlays) == 0:
		return errors.New("no Overlays")
	case cfg.MTU != 0 && cfg.MTU < minIPv4MTU+overhead4:
		return fmt.Errorf("MTU %d is too small", cfg.MTU)
	}
	setDefault(&cfg.HoldTime, DefaultHoldTime)
	setDefault(&cfg.HoldPerEID, DefaultHoldPerEID)
	setDefault(&cfg.HoldTotal, DefaultHoldTotal)
	setDefault(&cfg.HoldOctets, DefaultHoldOctets)
	setDefault(&cfg.ICMPRate, DefaultICMPRate)
	if cfg.HoldTime < 0 {
		cfg.HoldPerEID = -1
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// overlay is an Overlay as the packets see it.
type overlay struct {
	device   Device
	iid      uint32
	headers  [numFormats][2]lisp.DataHeader // by format and family of the inner packet
	own      atomic.Pointer[ownEIDs]
	proxyITR bool
	proxyETR eidSet
	relay    bool
	answers  bool // its device has nothing but our own ICMP errors
	ethernet func(remote netip.AddrPort, frame []byte)
	queues   []Device // Device first
	writers  []deviceWriter
	virtio   bool // all queues are VirtioDevices
}

func newOverlay(o Overlay) (*overlay, error) {
	if o.Relay && o.Device == nil && len(o.EIDs)+len(o.Queues)+len(o.ProxyETR) == 0 {
		// What it hands over are answers to sources elsewhere.
		o.Device, o.ProxyITR = newRelayDevice(), true
	}
	switch {
	case o.Device == nil:
		return nil, errors.New("no Device")
	case o.InstanceID >= lisp.InstanceIDControl:
		return nil, errors.New("an instance ID has 24 bits, and 0xffffff is not for data")
	case len(o.EIDs) == 0 && !o.ProxyITR && len(o.ProxyETR) == 0 && !o.Relay:
		return nil, errors.New("no EIDs")
	}
	v := &overlay{device: o.Device, iid: o.InstanceID, headers: dataHeaders(o.InstanceID), proxyITR: o.ProxyITR, relay: o.Relay, ethernet: o.Ethernet}
	_, v.answers = o.Device.(*relayDevice)
	own, err := newOwnEIDs(o.EIDs, len(o.ProxyETR) > 0)
	if err != nil {
		return nil, err
	}
	v.own.Store(own)
	for _, p := range o.ProxyETR {
		if err := plain(p); err != nil {
			return nil, err
		}
		v.proxyETR.add(p.Masked())
	}
	v.virtio = true
	v.queues = append([]Device{o.Device}, o.Queues...)
	for _, d := range v.queues {
		if d == nil {
			return nil, errors.New("a queue without Device")
		}
		v.writers = append(v.writers, deviceWriter{device: d, virtio: virtioOf(d)})
		v.virtio = v.virtio && virtioOf(d) != nil
	}
	return v, nil
}
