package node

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTakesLANs(t *testing.T) {
	t.Parallel()
	for more, want := range map[string]bool{
		"":                     false, // a mobile node
		"operating-mode = xTR": true,
		"operating-mode = xTR\nlan-fast-path = off":                    false,
		"operating-mode = xTR\nfirewall-marks { unusable = fallback }": false,
	} {
		cfg := parse(t, "map-resolver = {203.0.113.1}\ndatabase-mapping { eid-prefix = 198.51.100.1/32 interface = eth0 }\n"+more)
		assert.Equal(t, want, takesLANs(cfg), "%q", more)
	}
}
