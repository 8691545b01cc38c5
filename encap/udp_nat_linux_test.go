package encap

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/shareport"
	"github.com/xtrkit/xtrkit/mapcache"
)

// natBatch is packets of several flows to one locator behind a NAT, among others.
func natBatch(remote netip.AddrPort) (out []Outgoing, natted int) {
	out = datagramsOf(remote, 1, 64, 0, 300, 300)
	out = append(out, datagramsOf(remote, 2, 64, 0, 300)...)
	out = append(out, datagramsOf(remote, 99, 64, 0, 300, 120)...)
	out = append(out, datagramsOf(remote, 5, 9, 3, 80)...)
	for i := range out {
		out[i].NAT = true
	}
	out[5].MayFragment = true
	natted = len(out)
	return append(out, datagramsOf(remote, 7, 64, 0, 70, 70)...), natted
}

// checkNATSource sends a batch and returns the one source of what is for a NAT.
func checkNATSource(t *testing.T, path Path, u *udpPair) netip.AddrPort {
	t.Helper()
	out, natted := natBatch(u.remote)
	require.True(t, path.Send(out), "%v", out)
	got, together := u.receive(t, len(out))
	require.Len(t, got, len(out))
	if p := path.(*udpPath); p.segment && !p.zeroLISP {
		assert.GreaterOrEqual(t, together, 5, "of several flows in one large send")
	}
	bySize := map[int][]Incoming{}
	for _, in := range got {
		bySize[len(in.Bytes)] = append(bySize[len(in.Bytes)], in)
	}
	source := bySize[300][0].Remote
	for i, o := range out {
		in := bySize[len(o.Bytes)][0]
		bySize[len(o.Bytes)] = bySize[len(o.Bytes)][1:]
		assert.Equal(t, o.Bytes, in.Bytes, "packet %d", i)
		assert.Equal(t, o.TTL, in.TTL, "packet %d", i)
		assert.Equal(t, o.TOS, in.TOS, "packet %d", i)
		if i < natted {
			assert.Equal(t, source, in.Remote, "packet %d: whatever its flow", i)
		} else {
			assert.NotEqual(t, source.Port(), in.Remote.Port(), "packet %d: other locators have ports by flow", i)
		}
	}
	return source
}

// TestNATSourcePort: all that crosses a NAT leaves from one port, in large sends
// as ever.
func TestNATSourcePort(t *testing.T) {
	for _, fam := range []struct {
		name     string
		from, to netip.Addr
	}{
		{"IPv4", addr("127.0.0.2"), addr("127.0.0.3")},
		{"IPv6", addr("::1"), addr("::1")},
	} {
		for _, cfg := range []UDPConfig{{}, {Checksum: ChecksumZero}, {NoOffload: true}} {
			t.Run(fam.name, func(t *testing.T) {
				// An xTR, on the way to its RTR: RFC nat19-5.1.3-2, nat19i-5.6-1.
				u := newUDPPair(t, fam.from, fam.to, cfg, UDPConfig{})
				source := checkNATSource(t, u.path, u)
				assert.Equal(t, fam.from, source.Addr())
				assert.Equal(t, source, checkNATSource(t, u.path, u), "it stays")
				assert.True(t, u.path.(*udpPath).SendsFrom(source.Port()))
			})
		}
	}
}

// TestNATSharedPort: an RTR sends from the port that its control plane listens at,
// which goes on to receive.
func TestNATSharedPort(t *testing.T) {
	for _, fam := range []struct {
		name            string
		all             string
		from, from2, to netip.Addr
	}{
		{"IPv4", "0.0.0.0:0", addr("127.0.0.2"), addr("127.0.0.4"), addr("127.0.0.3")},
		{"IPv6", "[::]:0", addr("::1"), addr("::1"), addr("::1")},
	} {
		t.Run(fam.name, func(t *testing.T) {
			network := "udp4"
			if fam.to.Is6() {
				network = "udp6"
			}
			var err error
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				if e := c.Control(func(fd uintptr) { err = shareport.Allow(int(fd)) }); e != nil {
					return e
				}
				return err
			}}
			control, err := lc.ListenPacket(context.Background(), network, fam.all)
			require.NoError(t, err)
			defer control.Close()
			rc, err := control.(*net.UDPConn).SyscallConn()
			require.NoError(t, err)
			require.NoError(t, rc.Control(func(fd uintptr) { err = shareport.Keep(int(fd), 1, fam.to.Is6()) }))
			require.NoError(t, err)
			port := control.LocalAddr().(*net.UDPAddr).AddrPort().Port()

			cfg := UDPConfig{NATPort: port}
			u := newUDPPair(t, fam.from, fam.to, cfg, UDPConfig{})
			// RFC nat19-5.3.1-s1: of the address that is ours there, and from that port.
			assert.Equal(t, netip.AddrPortFrom(fam.from, port), checkNATSource(t, u.path, u))
			second, err := (&udpUnderlay{cfg: UDPConfig{NATPort: port, SourcePorts: 4}}).Open(mapcache.Local{Addr: fam.from2, Up: true})
			require.NoError(t, err)
			assert.Equal(t, netip.AddrPortFrom(fam.from2, port), checkNATSource(t, second, u))

			for i := range 20 { // from as many peers
				if i == 10 {
					require.NoError(t, second.Close())
				}
				peer, err := net.Dial(network, netip.AddrPortFrom(fam.from, port).String())
				require.NoError(t, err)
				_, err = peer.Write([]byte{byte(i)})
				require.NoError(t, err)
				b := make([]byte, 9)
				require.NoError(t, control.SetReadDeadline(time.Now().Add(waitTime)))
				n, from, err := control.ReadFrom(b)
				require.NoError(t, err, "what arrives at the port comes to the control plane")
				assert.Equal(t, []byte{byte(i)}, b[:n])
				assert.Equal(t, peer.LocalAddr().String(), from.String())
				require.NoError(t, peer.Close())
			}
		})
	}
}

// TestNATDataPort: with lispers.net an RTR sends from the data port itself.
func TestNATDataPort(t *testing.T) {
	a, b := addr("127.0.0.2"), addr("127.0.0.3")
	port := freePort(t, a)
	r, err := NewUDP(UDPConfig{Listen: []netip.Addr{a}, Port: port, NATPort: port})
	require.NoError(t, err)
	defer r.Close()
	path, err := r.Open(mapcache.Local{Addr: a, Up: true})
	require.NoError(t, err)
	defer path.Close()
	u := newUDPPair(t, a, b, UDPConfig{}, UDPConfig{})
	assert.Equal(t, netip.AddrPortFrom(a, port), checkNATSource(t, path, u))

	back := &udpPair{u.path, r.Receivers()[0], netip.AddrPortFrom(a, port), make([]Incoming, r.Receivers()[0].BatchSize())}
	require.NoError(t, r.(*udpUnderlay).receivers[0].conn.SetReadDeadline(time.Now().Add(waitTime)))
	out, _ := natBatch(back.remote)
	require.True(t, u.path.Send(out))
	got, _ := back.receive(t, len(out))
	assert.Len(t, got, len(out), "what arrives is received as ever")
}

func TestNATAllocations(t *testing.T) {
	u := newUDPPair(t, addr("127.0.0.2"), addr("127.0.0.3"), UDPConfig{}, UDPConfig{})
	out, _ := natBatch(u.remote)
	total := 0
	for i := range out {
		total += len(out[i].Bytes)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if !u.path.Send(out) {
			t.Fatal(out[0].Err)
		}
		for n := 0; n < total; {
			k, err := u.receiver.Receive(u.batch)
			if err != nil {
				t.Fatal(err)
			}
			for _, in := range u.batch[:k] {
				n += len(in.Bytes)
			}
		}
	}))
}
