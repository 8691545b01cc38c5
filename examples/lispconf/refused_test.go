package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// TestRefused: what the system refuses is in the overview, and only then.
func TestRefused(t *testing.T) {
	st := nodeStatus()
	var b bytes.Buffer
	overview(&b, &st)
	assert.NotContains(t, b.String(), "refuses")
	st.Node.Refused = []statusd.Refusal{{What: "routes of the uplinks", Reason: "file exists", Since: now.Add(-time.Minute), Tries: 60}}
	b.Reset()
	overview(&b, &st)
	assert.Regexp(t, `The system refuses\n +What +Since +Tries +Reason\n +routes of the uplinks +00:01:00 +60 +file exists\n`, b.String())
}
