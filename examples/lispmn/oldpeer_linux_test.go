package main

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
)

// oldPeer is an xTR that knows no more than RFC 6830: it takes every bit that
// came later for reserved, and asks about an SMR where it came from, not the
// mapping system. It sends echo requests to an EID.
type oldPeer struct {
	t             *testing.T
	control, data net.PacketConn
	self          netip.Addr
	eid, remote   netip.Addr

	mu      sync.Mutex
	locator netip.Addr // where the remote EID is
	smrs    int
	invoked []netip.Addr // where it asked after an SMR
	echoes  map[netip.Addr]int
}

func startOldPeer(t *testing.T, d *demoLab, s, remote site) *oldPeer {
	t.Helper()
	h := d.hosts[s.name]
	p := &oldPeer{t: t, self: s.rlocAddr(ipv4), eid: s.eidAddr(ipv4), remote: remote.eidAddr(ipv4), echoes: map[netip.Addr]int{}}
	var err error
	p.control, err = h.ListenPacket("udp4", ":4342")
	require.NoError(t, err)
	p.data, err = h.ListenPacket("udp4", ":4341")
	require.NoError(t, err)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(p.answer)
	wg.Go(p.receive)
	wg.Go(func() { p.send(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = p.control.Close()
		_ = p.data.Close()
		wg.Wait()
	})

	register := lisp.MapRegister{WantMapNotify: true, Nonce: 1, Records: []lisp.EIDRecord{p.record()}}
	b, err := register.AppendSigned(nil, lisp.Key{Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte(s.key)})
	require.NoError(t, err)
	ms := net.UDPAddrFromAddrPort(netip.AddrPortFrom(siteMS.rlocAddr(ipv4), lisp.ControlPort))
	_, err = p.control.WriteTo(b, ms)
	require.NoError(t, err)

	// The first time by the mapping system, of course.
	payload, err := p.mapRequest(false).AppendBinary(nil)
	require.NoError(t, err)
	packet, err := lisp.AppendInner(nil, lisp.Inner{
		Source: netip.AddrPortFrom(p.self, lisp.ControlPort), Destination: netip.AddrPortFrom(p.remote, lisp.ControlPort), Payload: payload,
	})
	require.NoError(t, err)
	b, err = (&lisp.EncapsulatedControl{Packet: packet}).AppendBinary(nil)
	require.NoError(t, err)
	_, err = p.control.WriteTo(b, ms)
	require.NoError(t, err)
	return p
}

func (p *oldPeer) record() lisp.EIDRecord {
	return lisp.EIDRecord{
		TTL: 10, MaskLen: 32, Authoritative: true, EID: lisp.AddressFrom(p.eid),
		Locators: []lisp.RLOCRecord{{Priority: 1, Weight: 100, MPriority: 255, Local: true, Reachable: true, RLOC: lisp.AddressFrom(p.self)}},
	}
}

func (p *oldPeer) mapRequest(invoked bool) *lisp.MapRequest {
	return &lisp.MapRequest{
		SMRInvoked: invoked, Nonce: 77, SourceEID: lisp.AddressFrom(p.eid), ITRRLOCs: []lisp.Address{lisp.AddressFrom(p.self)},
		Records: []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(p.remote)}},
	}
}

// answer is the control plane.
func (p *oldPeer) answer() {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.control.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := lisp.Parse(buf[:n])
		if err != nil {
			continue
		}
		if e, ok := m.(*lisp.EncapsulatedControl); ok {
			in, err := e.Inner()
			if err != nil {
				continue
			}
			if m, err = lisp.Parse(in.Payload); err != nil {
				continue
			}
		}
		sender := from.(*net.UDPAddr).AddrPort().Addr().Unmap()
		switch m := m.(type) {
		case *lisp.MapRequest:
			p.request(m, sender, from)
		case *lisp.MapReply:
			p.learn(m)
		}
	}
}

func (p *oldPeer) request(m *lisp.MapRequest, sender netip.Addr, from net.Addr) {
	if m.SMR {
		p.mu.Lock()
		p.smrs++
		p.invoked = append(p.invoked, sender)
		p.mu.Unlock()
		b, err := p.mapRequest(true).AppendBinary(nil)
		assert.NoError(p.t, err)
		_, _ = p.control.WriteTo(b, from)
		return
	}
	rec := p.record()
	rec.Locators[0].Probed = m.Probe
	b, err := (&lisp.MapReply{Probe: m.Probe, Nonce: m.Nonce, Records: []lisp.EIDRecord{rec}}).AppendBinary(nil)
	assert.NoError(p.t, err)
	to, ok := m.ITRRLOCs[0].IP()
	assert.True(p.t, ok)
	_, _ = p.control.WriteTo(b, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, lisp.ControlPort)))
}

// learn takes the best locator that is up.
func (p *oldPeer) learn(m *lisp.MapReply) {
	for _, r := range m.Records {
		best := -1
		for i, l := range r.Locators {
			if l.Reachable && (best < 0 || l.Priority < r.Locators[best].Priority) {
				best = i
			}
		}
		if best >= 0 {
			ip, _ := r.Locators[best].RLOC.IP()
			p.mu.Lock()
			p.locator = ip
			p.mu.Unlock()
		}
	}
}

// send is the way out: an echo request each 5 ms.
func (p *oldPeer) send(ctx context.Context) {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: p.eid.AsSlice(), DstIP: p.remote.AsSlice()}
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 1}
	buf := gopacket.NewSerializeBuffer()
	assert.NoError(p.t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, icmp))
	packet := append(make([]byte, 8), buf.Bytes()...)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		to := p.locator
		p.mu.Unlock()
		if to.IsValid() {
			_, _ = p.data.WriteTo(packet, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, lisp.DataPort)))
		}
	}
}

// receive is the way in: it counts echo replies by the locator that they come from.
func (p *oldPeer) receive() {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.data.ReadFrom(buf)
		if err != nil {
			return
		}
		if n < 8+28 || binary.BigEndian.Uint16(buf[8+20:]) != 0 { // echo reply
			continue
		}
		p.mu.Lock()
		p.echoes[from.(*net.UDPAddr).AddrPort().Addr().Unmap()]++
		p.mu.Unlock()
	}
}

func (p *oldPeer) echoesFrom(a netip.Addr) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.echoes[a]
}

// TestOldPeer: a peer that only speaks RFC 6830 follows a handover too.
func TestOldPeer(t *testing.T) {
	d := multihomeLab(t)
	startNodes(t, d, d.multihomeConfig, multiA)
	p := startOldPeer(t, d, siteB, siteA)
	first, second := siteA.rlocAddr(ipv4), netip.MustParseAddr(multiA.more[0].addr)
	echoes := func(from netip.Addr) {
		t.Helper()
		n := p.echoesFrom(from) + 100
		require.NoError(t, netlab.Eventually(t.Context(), "echo replies from "+from.String(), func() bool { return p.echoesFrom(from) >= n }))
	}
	echoes(first)
	for _, step := range []struct {
		do change
		to netip.Addr
	}{{unplug("a", "eth0"), second}, {plugIn("a", "eth0"), first}} {
		since := time.Now()
		require.NoError(t, step.do(t.Context(), d))
		echoes(step.to)
		t.Logf("100 echo replies from %v %v after the change", step.to, time.Since(since).Round(time.Millisecond))
		require.NoError(t, netlab.Eventually(t.Context(), "the peer to send there", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.locator == step.to
		}))
		echoes(step.to)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	assert.Contains(t, p.invoked, second, "it asked the new locator itself")
	t.Logf("%d SMRs", p.smrs)
}

// TestAnswersGoBack: what answers a Map-Request or a probe leaves by the uplink and
// from the address that was asked, wherever the default route goes: the router
// drops all else. And so with each way that the host itself filters sources.
func TestAnswersGoBack(t *testing.T) {
	d := multihomeLab(t)
	startNodes(t, d, d.multihomeConfig, multiA)
	conn, err := d.hosts["b"].ListenPacket("udp4", ":4342")
	require.NoError(t, err)
	defer conn.Close()
	nonce := lisp.Nonce(1000)
	for _, filter := range []string{"0", "1", "2"} {
		for _, name := range []string{"all", "eth0", "eth1"} {
			d.hosts["a"].Sysctl("net/ipv4/conf/"+name+"/rp_filter", filter)
		}
		require.NoError(t, d.lab.Err())
		for _, to := range []string{siteA.rloc[ipv4], multiA.more[0].addr} {
			for _, isProbe := range []bool{false, true} {
				nonce++
				m := lisp.MapRequest{
					Probe: isProbe, Nonce: nonce, SourceEID: lisp.AddressFrom(siteB.eidAddr(ipv4)),
					ITRRLOCs: []lisp.Address{lisp.AddressFrom(siteB.rlocAddr(ipv4))},
					Records:  []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(siteA.eidAddr(ipv4))}},
				}
				b, err := m.AppendBinary(nil)
				require.NoError(t, err)
				require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
				_, err = conn.WriteTo(b, &net.UDPAddr{IP: net.ParseIP(to), Port: lisp.ControlPort})
				require.NoError(t, err)
				buf := make([]byte, 2048)
				for {
					n, from, err := conn.ReadFrom(buf)
					require.NoError(t, err, "rp_filter %s: from %s, probe %v", filter, to, isProbe)
					reply, err := lisp.Parse(buf[:n])
					require.NoError(t, err)
					if r, ok := reply.(*lisp.MapReply); ok && r.Nonce == nonce {
						assert.Equal(t, to+":4342", from.String())
						assert.Equal(t, isProbe, r.Probe)
						break
					}
				}
			}
		}
	}
}
