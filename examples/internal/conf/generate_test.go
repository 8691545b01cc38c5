package conf

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGenerate: what is written is read without a word, and says what was asked for.
func TestGenerate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		eids string
		mode Mode
	}{{"198.51.100.1, 2001:db8::1", ModeMN}, {"198.51.100.0/24", ModeXTR}} {
		eids, err := ParseEIDs(tc.eids)
		require.NoError(t, err)
		secret := `a "key" with ${HOME}, 'quotes', \ and # and // in it`
		a := Answers{EIDs: eids, MapServer: "192.0.2.1", Key: Secret(secret), Interfaces: []string{"eth0", "wlan*"}}
		n, err := node(t, a.File())
		require.NoError(t, err)
		assert.Empty(t, n.Warnings)
		assert.Equal(t, tc.mode, n.Mode)
		assert.Equal(t, []MapServer{{Addr: netip.MustParseAddr("192.0.2.1"), Key: Key{Type: 2, Secret: Secret(secret)}}}, n.MapServers)
		assert.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, n.MapResolvers)
		require.Len(t, n.Mappings, len(eids))
		assert.Len(t, n.Mappings[0].Locators, 4)
		assert.Equal(t, "wlan*", n.Mappings[0].Locators[2].Interface)
	}
	_, err := ParseEIDs("nonsense")
	require.ErrorContains(t, err, "'nonsense' is not an EID-Prefix")
	_, err = ParseEIDs(" , ")
	require.ErrorContains(t, err, "at least one EID is needed")
}
