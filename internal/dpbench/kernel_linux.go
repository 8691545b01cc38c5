package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
)

// kernelMTU leaves the room that LISP over IPv4 needs.
const kernelMTU = 1500 - 20 - 8 - 8

// kernelTunnel makes a VXLAN-GPE device on the port of LISP-GPE, which is
// LISP-GPE on the wire, and routes through it to the EIDs of the other host.
func kernelTunnel(h *netlab.Host, addr, to, many, remote string) error {
	const name = "vx"
	if err := h.Do(func() error { return addVXLANGPE(name) }); err != nil {
		return fmt.Errorf("VXLAN-GPE device: %w", err)
	}
	link, err := h.Netlink().LinkByName(name)
	if err != nil {
		return err
	}
	err = errors.Join(h.Netlink().LinkSetMTU(link, kernelMTU), h.Netlink().LinkSetUp(link))
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr + "/32")
	if err != nil {
		return err
	}
	if err := h.Netlink().AddrAdd(link, a); err != nil {
		return err
	}
	for _, dst := range []netip.Prefix{netip.MustParsePrefix(to + "/32"), manyPrefix(many)} {
		err = h.Netlink().RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Src: net.ParseIP(addr), Scope: netlink.SCOPE_LINK,
			Encap: ipEncap{netip.MustParseAddr(remote).As4()},
		})
		if err != nil {
			return fmt.Errorf("route through the VXLAN-GPE device: %w", err)
		}
	}
	return nil
}

// addVXLANGPE is "ip link add NAME type vxlan external gpe dstport 4341": the
// netlink library does not know gpe.
func addVXLANGPE(name string) error {
	const attrGPE = 27 // IFLA_VXLAN_GPE
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_FLOWBASED, []byte{1})
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{0})
	data.AddRtAttr(attrGPE, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, lisp.DataPort))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// ipEncap is "encap ip id 0 dst ADDR ttl 64" of a route.
type ipEncap struct{ dst [4]byte }

// Type is LWTUNNEL_ENCAP_IP.
func (ipEncap) Type() int { return 2 }

// Encode returns the attributes.
func (e ipEncap) Encode() ([]byte, error) {
	const id, dst, ttl = 1, 2, 4 // LWTUNNEL_IP_ID, _DST, _TTL
	var b []byte
	for _, a := range []*nl.RtAttr{
		nl.NewRtAttr(id, make([]byte, 8)), nl.NewRtAttr(dst, e.dst[:]), nl.NewRtAttr(ttl, []byte{64}),
	} {
		b = append(b, a.Serialize()...)
	}
	return b, nil
}

// Decode is not needed: no route is read.
func (ipEncap) Decode([]byte) error { return errors.ErrUnsupported }

// String is as ip-route(8) has it.
func (e ipEncap) String() string {
	return fmt.Sprintf("encap ip id 0 dst %v ttl 64", netip.AddrFrom4(e.dst))
}

// Equal compares what is sent.
func (e ipEncap) Equal(x netlink.Encap) bool {
	a, _ := e.Encode()
	b, err := x.Encode()
	return err == nil && x.Type() == e.Type() && bytes.Equal(a, b)
}
