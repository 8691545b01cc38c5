package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

const (
	familyINET  = unix.AF_INET
	familyINET6 = unix.AF_INET6
)

const (
	demoPings    = 8       // enough for some after those that wait for a mapping
	demoPort     = "49200" // nothing that Wireshark would take for a protocol it knows
	demoOctets   = 32 << 20
	demoCaptured = 2 << 20 // with -capture every packet is written several times
)

// ping sends echo requests from a host with a socket like that of any program.
func (d *demoLab) ping(ctx context.Context, from, dest string, to netip.Addr, over string) (probe.PingResult, error) {
	network, local, family := "ip4:icmp", "0.0.0.0", ipv4
	if to.Is6() {
		network, local, family = "ip6:ipv6-icmp", "::", ipv6
	}
	conn, err := d.hosts[from].ListenPacket(network, local)
	if err != nil {
		return probe.PingResult{}, err
	}
	defer func() { _ = conn.Close() }()
	r, err := probe.Ping(ctx, conn, to, probe.PingConfig{Count: demoPings})
	d.pings = append(d.pings, pingReport{path{from, dest, familyName(family), over}, r})
	return r, err
}

// firstPing pings b's EID, which a has no mapping of.
func firstPing(family, over int) func(context.Context, *demoLab) ([]string, error) {
	return pingStep(family, over, true)
}

// laterPing pings b's EID when a has a mapping.
func laterPing(family, over int) func(context.Context, *demoLab) ([]string, error) {
	return pingStep(family, over, false)
}

func pingStep(family, over int, first bool) func(context.Context, *demoLab) ([]string, error) {
	return func(ctx context.Context, d *demoLab) ([]string, error) {
		to := siteB.eidAddr(family)
		before, err := d.traffic(ctx, siteA)
		if err != nil {
			return nil, err
		}
		var f findings
		_, known := entryFor(before, to)
		f.check(known != first, "before the first packet, a has a mapping of %v: %v", to, known)
		r, err := d.ping(ctx, "a", "b", to, familyName(over))
		if err != nil {
			return nil, err
		}
		after, err := d.traffic(ctx, siteA)
		if err != nil {
			return nil, err
		}
		_, median := r.MinMedian()
		seen := []string{fmt.Sprintf("%d of %d answers, the first after %s, later ones after %s", r.Received, r.Sent, ms(r.First()), ms(median))}
		f.check(r.Received == r.Sent, "%d of %d pings were lost %v", r.Sent-r.Received, r.Sent, r.Errors)
		f.check(r.Duplicates == 0, "%d answers came twice", r.Duplicates)
		if first {
			held := after.Traffic.Held - before.Traffic.Held
			seen = append(seen, fmt.Sprintf("a held %d packets for the mapping and sent them when it came", held))
			f.check(r.First() >= heldFor, "the first answer took %s, less than the Map-Resolver needs (%s)", ms(r.First()), ms(heldFor))
			f.check(held > 0, "a held no packet")
			f.check(after.Traffic.Released-before.Traffic.Released == held, "of %d packets that a held, %d were sent", held, after.Traffic.Released-before.Traffic.Released)
		}
		f.checkTunnelled(before, after, to, over, uint64(r.Sent))
		return seen, f.err()
	}
}

// transferStep sends data over TCP from a to b's EID. With first, a has no
// mapping yet, and the SYN must arrive all the same without being sent again.
func transferStep(family, over int, first bool) func(context.Context, *demoLab) ([]string, error) {
	return func(ctx context.Context, d *demoLab) ([]string, error) {
		to := siteB.eidAddr(family)
		before, err := d.traffic(ctx, siteA)
		if err != nil {
			return nil, err
		}
		peerBefore, err := d.traffic(ctx, siteB)
		if err != nil {
			return nil, err
		}
		var f findings
		_, known := entryFor(before, to)
		f.check(known != first, "before the first packet, a has a mapping of %v: %v", to, known)

		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		address := net.JoinHostPort(to.String(), demoPort)
		ln, err := d.hosts["b"].Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = ln.Close() }()
		go func() { _ = probe.Receive(ctx, ln) }()
		octets := int64(demoOctets)
		if d.opt.capture != "" {
			octets = demoCaptured
		}
		start := time.Now()
		r, err := probe.Transfer(ctx, func(ctx context.Context) (net.Conn, error) {
			return d.hosts["a"].Dial(ctx, "tcp", address)
		}, octets)
		if err != nil {
			return nil, err
		}
		d.transfers = append(d.transfers, transferReport{path{"a", "b", familyName(family), familyName(over)}, r})
		after, err := d.traffic(ctx, siteA)
		if err != nil {
			return nil, err
		}
		seen := []string{
			fmt.Sprintf("connected after %s, SYN sent again %d times", ms(r.Connect), r.SYNRetransmits),
			fmt.Sprintf("%d MiB in %.2f s: %.0f Mbit/s, %d segments sent again", octets>>20, r.Elapsed.Seconds(), r.BitsPerSecond()/1e6, r.Retransmits),
		}
		peerAfter, err := d.traffic(ctx, siteB)
		if err != nil {
			return nil, err
		}
		f.checkHeld("a", before, after)
		f.checkHeld("b", peerBefore, peerAfter)
		// The host sends a SYN again after a second without an answer, lost or
		// not. The mappings take less, unless the machine has no time for us;
		// then it is enough that all that waited for them has left.
		late := created(after, to)
		if t := created(peerAfter, siteA.eidAddr(family)); t.After(late) {
			late = t
		}
		f.check(r.SYNRetransmits == 0 || first && late.Sub(start) > 900*time.Millisecond, "the SYN was sent again %d times", r.SYNRetransmits)
		if first {
			f.check(r.Connect >= heldFor, "the connection took %s, less than the Map-Resolver needs (%s)", ms(r.Connect), ms(heldFor))
			f.check(after.Traffic.Held > before.Traffic.Held, "a held no packet")
		}
		f.checkTunnelled(before, after, to, over, 3)
		return seen, f.err()
	}
}

// created is when a node got its mapping of an EID; zero: it has none.
func created(n statusd.Node, eid netip.Addr) time.Time {
	if e, ok := entryFor(n, eid); ok {
		return e.Created
	}
	return time.Time{}
}

// checkHeld checks that all packets that waited for a mapping left.
func (f *findings) checkHeld(host string, before, after statusd.Node) {
	held, released := after.Traffic.Held-before.Traffic.Held, after.Traffic.Released-before.Traffic.Released
	f.check(held == released, "%s held %d packets and sent %d of them", host, held, released)
}

// nativePing pings a host that is not a LISP site.
func nativePing(ctx context.Context, d *demoLab) (seen []string, err error) {
	var f findings
	for family := range siteWeb.rloc {
		before, err := d.traffic(ctx, siteA)
		if err != nil {
			return seen, err
		}
		to := siteWeb.rlocAddr(family)
		r, err := d.ping(ctx, "a", "web", to, "native")
		if err != nil {
			return seen, err
		}
		after, err := d.traffic(ctx, siteA)
		if err != nil {
			return seen, err
		}
		e, ok := entryFor(after, to)
		native := after.Traffic.Native.Packets - before.Traffic.Native.Packets
		seen = append(seen, fmt.Sprintf("%v: %d of %d answers, the first after %s; negative mapping %v (%s); %d packets left natively",
			to, r.Received, r.Sent, ms(r.First()), e.Prefix, e.Action, native))
		f.check(r.Received == r.Sent, "%v: %d of %d pings were lost %v", to, r.Sent-r.Received, r.Sent, r.Errors)
		f.check(r.First() >= heldFor, "%v: the first answer took %s, less than the Map-Resolver needs", to, ms(r.First()))
		f.check(ok && len(e.RLOCs) == 0, "%v: a has no negative mapping", to)
		f.check(native == uint64(r.Sent), "%v: %d packets left natively, not %d", to, native, r.Sent)
		f.check(after.Traffic.Encapsulated == before.Traffic.Encapsulated, "%v: packets were tunnelled", to)
	}
	return seen, f.err()
}
