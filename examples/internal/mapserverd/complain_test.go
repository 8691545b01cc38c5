package mapserverd

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/control/mapserver"
)

// TestComplaints: what is refused is told with what may be wrong, not too often.
func TestComplaints(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := complaints{log: slog.New(slog.NewTextHandler(&out, nil))}
	now := time.Unix(1000, 0)
	e := mapserver.Refused{Reason: mapserver.ReasonAuth, Site: "s", EID: netip.MustParsePrefix("192.0.2.1/32"), From: netip.MustParseAddrPort("203.0.113.5:4342")}
	told := func() int {
		n := strings.Count(out.String(), "\n")
		out.Reset()
		return n
	}
	c.refused(now, e)
	assert.Contains(t, out.String(), `eid=192.0.2.1/32 iid=0 site=s peer=203.0.113.5:4342 key_id=0 reason="authentication failed" perhaps="the node signs with another key than the lisp-site has"`)
	c.refused(now, e)
	assert.Equal(t, 1, told(), "once")
	other := e
	other.Reason = mapserver.ReasonNotConfigured
	c.refused(now, other)
	assert.Equal(t, 1, told(), "another reason")
	other.Reason = mapserver.ReasonMalformed
	c.refused(now, other)
	e.Info = true
	c.refused(now, e)
	e.Info = false
	assert.Zero(t, told(), "nothing that a configuration would change")
	for range 2 * maxComplaints {
		e.From = netip.AddrPortFrom(e.From.Addr().Next(), 1)
		c.refused(now, e)
	}
	assert.Equal(t, maxComplaints-2, told(), "however many there are")
	c.refused(now.Add(complainEvery), e)
	assert.Equal(t, 1, told(), "later again")
}
