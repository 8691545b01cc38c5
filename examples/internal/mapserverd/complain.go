package mapserverd

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/control/mapserver"
)

// Who is refused does not hear why: its operator and ours have to be told here, but
// nobody must be able to fill the log.
const (
	complainEvery = 5 * time.Minute
	maxComplaints = 64 // in that time
)

// advice says what to do where a Map-Register is refused because of what two
// configurations say.
var advice = map[mapserver.Reason]string{
	mapserver.ReasonAuth:          "the node signs with another key than the lisp-site has",
	mapserver.ReasonKey:           "the lisp-site has no key with the key-id of the node",
	mapserver.ReasonAlgorithm:     "the key-type of the node is another one than that of the lisp-site",
	mapserver.ReasonNotConfigured: "no lisp-site has the EID-Prefix; for a part of one it must have accept-more-specifics",
	mapserver.ReasonReplay:        "the node has lost its state-file, or somebody repeats what it sent",
}

type complaint struct {
	eid    netip.Prefix
	from   netip.Addr
	reason mapserver.Reason
}

// complaints logs what is refused, each once in a while. It is for one goroutine.
type complaints struct {
	log   *slog.Logger
	since time.Time
	made  map[complaint]bool
}

func (c *complaints) refused(now time.Time, e mapserver.Refused) {
	why, ok := advice[e.Reason]
	if !ok || e.Info {
		return
	}
	if now.Sub(c.since) >= complainEvery || c.made == nil {
		c.since, c.made = now, make(map[complaint]bool)
	}
	k := complaint{e.EID, e.From.Addr(), e.Reason}
	if c.made[k] || len(c.made) == maxComplaints {
		return
	}
	c.made[k] = true
	c.log.Warn("map-register refused", "eid", e.EID, "iid", e.IID, "site", e.Site, "peer", e.From, "key_id", e.KeyID, "reason", e.Reason.String(), "perhaps", why)
}
