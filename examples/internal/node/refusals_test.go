package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// TestRefusals: what is refused for days makes a few lines of the log, each further
// reason one more, and the end one.
func TestRefusals(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	lines := func(level string) (n int) {
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, level) {
				n++
			}
		}
		return n
	}
	var r refusals
	start := time.Unix(1_700_000_000, 0)
	now := start
	try := func(what string, err error) {
		now = now.Add(time.Second)
		r.note(now, what, err, logger)
	}
	try("routes", nil)
	assert.Empty(t, log.String(), "nothing was refused")

	full, denied := errors.New("no space"), errors.New("denied")
	for range 86_400 {
		try("routes", full)
	}
	assert.Equal(t, 17, lines("ERROR"), "the powers of two up to 65,536")
	for range 100 { // one and the other
		try("routes", denied)
		try("routes", full)
	}
	assert.Equal(t, 18, lines("ERROR"))
	for i := range 1000 { // never the same
		try("routes", fmt.Errorf("sequence %d", i))
	}
	assert.Equal(t, 18+maxReasons-2, lines("ERROR"))
	try("rules", denied)
	assert.Equal(t, 18+maxReasons-1, lines("ERROR"), "another change")
	require.Equal(t, []statusd.Refusal{
		{What: "routes", Reason: "sequence 999", Since: start.Add(2 * time.Second), Tries: 86_400 + 200 + 1000},
		{What: "rules", Reason: "denied", Since: now, Tries: 1},
	}, r.now())

	try("routes", nil)
	try("routes", nil)
	assert.Equal(t, 1, lines("INFO"))
	assert.Contains(t, log.String(), `"the system no longer refuses a change" what=routes tries=87600 after=24h20m`)
	require.Len(t, r.now(), 1)
	try("routes", full)
	assert.Equal(t, 18+maxReasons, lines("ERROR"), "it begins anew")
}
