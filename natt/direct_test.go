package natt

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/internal/netsim"
)

func TestLikelyPublic(t *testing.T) {
	public, lab := []string{"198.51.100.1:4342"}, []string{"10.9.9.9:4342", "[fd00::9]:4342"}
	for _, tt := range []struct {
		local   string
		servers []string
		want    bool
	}{
		{"203.0.113.7", public, true},
		{"2001:db8::7", public, true},
		{"10.0.0.2", public, false},
		{"172.16.0.2", public, false},
		{"192.168.0.2", public, false},
		{"169.254.0.2", public, false},
		{"100.64.0.2", public, false},
		{"100.127.255.255", public, false},
		{"100.128.0.1", public, true},
		{"fd00::2", public, false},
		{"fe80::2", public, false},
		{"::ffff:10.0.0.2", public, false},
		{"10.0.0.2", lab, true},
		{"100.64.0.2", lab, true},
		{"203.0.113.7", lab, true},
		{"10.0.0.2", append(lab, public...), false},
	} {
		var servers []netip.AddrPort
		for _, s := range tt.servers {
			servers = append(servers, netip.MustParseAddrPort(s))
		}
		assert.Equal(t, tt.want, LikelyPublic(netip.MustParseAddr(tt.local), servers), "%s %v", tt.local, tt.servers)
	}
}

// TestXTRDirect: when our own locator is to be announced as it is, while nobody
// answers and once somebody does.
func TestXTRDirect(t *testing.T) {
	public := netip.MustParseAddr("203.0.113.2")
	for _, tt := range []struct {
		name                string
		local               netip.Addr
		cfg                 XTRConfig
		detecting, in       bool // in: Unanswered
		answered, translate bool
	}{
		{"public", public, XTRConfig{}, true, true, true, false},
		{"private", worldLocal, XTRConfig{}, false, false, false, true},
		{"looks public", public, XTRConfig{}, true, true, false, true},
		{"always", public, XTRConfig{Always: true}, false, true, false, false},
		{"always, and known to be mute", public, XTRConfig{Always: true, Mute: true}, true, true, false, false},
		{"private, and known to be mute", worldLocal, XTRConfig{Mute: true}, false, false, false, true},
	} {
		w := newXTRWorld(t, 1, 1, fastLink, tt.cfg, func(w *xtrWorld) *netsim.Interface {
			if !tt.translate {
				return w.node.AddInterface(w.net.Internet(), fastLink, tt.local)
			}
			nat := w.net.AddNAT("nat", w.net.Internet(), fastLink, worldNAT, netsim.NATConfig{})
			return w.node.AddInterface(nat.Inside(), netsim.Link{}, tt.local)
		})
		w.ms.silent = true
		b := w.xtr.Binding()
		assert.Equal(t, Detecting, b.State)
		assert.Equal(t, tt.detecting, b.Direct, tt.name)
		w.net.Run(13 * time.Second)
		b = w.xtr.Binding()
		assert.Equal(t, Unanswered, b.State)
		assert.Equal(t, tt.in, b.Direct, tt.name)
		w.ms.silent = false
		w.net.Run(72 * time.Second)
		b = w.xtr.Binding()
		assert.Equal(t, tt.answered, b.State == Public, tt.name)
		assert.Equal(t, tt.answered, b.Direct, tt.name)
		assert.NotContains(t, w.text(), "meanwhile")
	}
}
