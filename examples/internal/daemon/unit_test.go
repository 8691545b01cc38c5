package daemon

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestUnits: systemd starts a program again and again after all but a mistake of its
// operator: at boot, host names cannot be resolved yet.
func TestUnits(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"../../lispmn/lispmn.service", "../../lispms/lispms.service"} {
		b, err := os.ReadFile(unit)
		require.NoError(t, err)
		text := string(b)
		for _, want := range []string{"Type=notify", "Restart=on-failure", fmt.Sprintf("RestartPreventExitStatus=%d", ExitUsage), "StartLimitIntervalSec=0", "WatchdogSec="} {
			assert.Contains(t, text, "\n"+want, unit)
		}
		assert.NotContains(t, text, "ExecStartPre", "%s: whose exit code systemd does not compare", unit)
	}
}
