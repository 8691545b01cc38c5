package mapserverd

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestSharedKey: a Map-Server and an RTR in one process have a key that is made up, and
// a file that says otherwise is refused.
func TestSharedKey(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}
	const other = "rtr-ms-node { address = 192.0.2.1 key = k }\n"
	for _, src := range []string{file, "operating-mode = RTR\n" + other} {
		k, err := newSharedKey(parse(t, src), addrs)
		require.NoError(t, err)
		assert.Empty(t, k.mapServers(addrs), "there are not both")
		assert.Empty(t, k.rtrs(nil))
	}
	both := parse(t, "operating-mode = RTR\n"+other+file)
	one, err := newSharedKey(both, addrs)
	require.NoError(t, err)
	ms := one.mapServers(addrs)
	require.Len(t, ms, 2)
	assert.Equal(t, addrs[1], ms[1].Addr)
	assert.Len(t, ms[0].Key.Secret, sharedKeyLen)
	two, err := newSharedKey(both, addrs)
	require.NoError(t, err)
	assert.NotEqual(t, one.key.Secret, two.key.Secret)
	for _, section := range []string{"rtr-ms-node", "ms-rtr-node"} {
		_, err = newSharedKey(parse(t, "operating-mode = RTR\n"+section+" { address = 2001:db8::1 key = k }\n"+file), addrs)
		assert.ErrorContains(t, err, section+" 2001:db8::1 is this host, whose Map-Server and RTR know each other: leave it out")
	}
}

// TestSharedAddresses: that the host has other addresses needs a restart where it speaks
// to itself, and only there.
func TestSharedAddresses(t *testing.T) {
	t.Parallel()
	a, b, c := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("203.0.113.9")
	k := sharedKey{key: lisp.Key{Secret: []byte("made up")}}
	assert.Empty(t, k.moved([]netip.Addr{a, b}, []netip.Addr{b, a}))
	assert.Equal(t, []string{
		"addresses of this host: + 203.0.113.9, - 2001:db8::1 (its Map-Server and RTR know each other by those of the start)",
	}, k.moved([]netip.Addr{a, b}, []netip.Addr{c, a}))
	assert.Empty(t, sharedKey{}.moved([]netip.Addr{a, b}, []netip.Addr{c}))
}

func TestWhat(t *testing.T) {
	t.Parallel()
	cfg := parse(t, file)
	s := &Server{cfg: Config{Conf: cfg}}
	assert.Equal(t, "serves 1 sites", s.what())
}
