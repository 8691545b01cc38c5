package encap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

const (
	ethernetHeaderLen = 14
	vlanTagLen        = 4
	maxVLANTags       = 2
	frameTTL          = 64 // of outer packets: a frame has none that could be copied
)

// frames sends Ethernet frames, one at a time.
type frames struct {
	mu     sync.Mutex
	header [dataHeaderLen]byte
	out    [1]Outgoing
}

// SendFrame encapsulates an Ethernet frame, without its frame check sequence, by
// LISP-GPE or VXLAN-GPE (RFC 9305), to a locator of its destination MAC in an
// instance. An 802.1Q priority becomes the outer DSCP (class selector). Nothing
// is held or flooded: a frame to a MAC without a mapping is dropped and the
// control plane asked for one. Frames are not fragmented; the error for one that
// is too long wraps ErrTooBig. Every frame that was not sent is counted.
// SendFrame does not keep or change the frame.
func (f *Forwarder) SendFrame(instance uint32, frame []byte) error {
	why, err := f.sendFrame(instance, frame)
	if why != DropNone {
		f.drop(why)
		if err == nil {
			err = errors.New(why.String())
		}
		return fmt.Errorf("encap: send a frame: %w", err)
	}
	return nil
}

func (f *Forwarder) sendFrame(instance uint32, frame []byte) (DropReason, error) {
	o := f.overlay(instance)
	switch {
	case o == nil:
		return DropInstance, nil
	case len(frame) < ethernetHeaderLen:
		return DropTruncated, nil
	}
	dst := mapcache.MAC(frame)
	hash, tos := f.frameFlow(frame)
	d := f.cfg.View().ForwardMAC(instance, dst, hash)
	switch d.Verdict {
	case mapcache.Encapsulate:
	case mapcache.Miss, mapcache.SendRequest:
		f.discover(mapcache.Discovery{Kind: mapcache.DiscoveryRequest, Key: mapcache.MACKey(instance, dst)})
		return DropRequest, nil
	case mapcache.NoLocator:
		return DropNoLocator, nil
	default:
		return DropAction, nil
	}
	locals := f.locals.Load()
	counter := f.remotes.forID(d.LocatorID, &d.Locator)
	local, _, ok := locals.choosePair(d.Locator, counter, hash)
	remote := d.Locator.Addr
	switch {
	case d.Locator.Format == mapcache.FormatLISP:
		return DropProtocol, nil // has no way to say that it is a frame
	case locals.owns(remote):
		return DropLoop, nil
	case !ok:
		return DropNoSource, nil
	case len(frame) > f.paths.limit(remote, locals.mtus[local])-Overhead(remote):
		return DropTooBig, ErrTooBig
	}
	s := &f.frames
	s.mu.Lock()
	defer s.mu.Unlock()
	lisp.PutDataHeader(s.header[:], lisp.DataHeader{}.WithInstanceID(instance).WithNextProtocol(lisp.NextEthernet))
	s.out[0] = Outgoing{
		Bytes: s.header[:], Payload: frame, Remote: netip.AddrPortFrom(remote, d.Locator.Port), Format: d.Locator.Format,
		Hash: hash, TTL: frameTTL, TOS: tos, NAT: d.Locator.NAT,
	}
	locals.paths[local].Send(s.out[:])
	s.out[0].Payload = nil
	if err := s.out[0].Err; err != nil {
		if errors.Is(err, ErrTooBig) {
			return DropTooBig, err
		}
		return DropSend, err
	}
	counter.out.add(1, len(frame))
	f.c.encapsulated.add(1, len(frame))
	return DropNone, nil
}

// frameFlow returns the flow hash of a frame, that of the IP packet in it if there
// is one, and the traffic class of its priority. The ECN field is not copied: what
// is marked on the way would be lost where nobody looks into the frame.
func (f *Forwarder) frameFlow(frame []byte) (hash uint32, tos uint8) {
	const typeIPv4, typeIPv6, typeVLAN, typeServiceVLAN = 0x0800, 0x86dd, 0x8100, 0x88a8
	at := ethernetHeaderLen
	for tags := 0; ; tags++ {
		switch binary.BigEndian.Uint16(frame[at-2:]) {
		case typeIPv4, typeIPv6:
			return mapcache.FlowHash(f.cfg.FlowSeed, frame[at:]), tos
		case typeVLAN, typeServiceVLAN:
			if tags < maxVLANTags && len(frame) >= at+vlanTagLen {
				if tags == 0 {
					tos = frame[at] >> 5 << 5
				}
				at += vlanTagLen
				continue
			}
		}
		var src, dst [16]byte
		src[0], dst[0] = 1, 1 // no IPv4-mapped addresses
		copy(dst[4:], frame[:6])
		copy(src[4:], frame[6:12])
		return mapcache.FlowHashTuple(f.cfg.FlowSeed, netip.AddrFrom16(src), netip.AddrFrom16(dst), 0, 0, 0), tos
	}
}
