package netsim_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
)

// judge sees every message: it must parse, its sender must keep to the rates of
// the RFC, and it is counted by what it is.
type judge struct {
	t     testing.TB
	nodes []*rates // by index
	sent  [numWhats]uint64
	total uint64
	asked map[notifyKey]bool     // Map-Notifies, by Map-Registers
	news  map[notifyKey]*history // unsolicited ones

	request  lisp.MapRequest
	reply    lisp.MapReply
	register lisp.MapRegister
	notify   lisp.MapNotify
	ack      lisp.MapNotifyAck
	ecm      lisp.EncapsulatedControl
}

// what is a kind of message.
type what uint8

const (
	aRequest what = iota // encapsulated, from an xTR
	anSMRInvoked
	aForward // encapsulated, from the Map-Server
	anSMR
	aProbe
	aProbeReply
	aReply
	aRegister
	aNotify
	anAck
	numWhats
)

var whatNames = [numWhats]string{
	"Map-Request", "SMR-invoked Map-Request", "forwarded Map-Request", "SMR", "RLOC-probe", "RLOC-probe reply",
	"Map-Reply", "Map-Register", "Map-Notify", "Map-Notify-Ack",
}

// rates is what one node has sent and received.
type rates struct {
	free     bool // an attacker, or a node that is made to misbehave
	requests map[requestKey]*history
	nonces   map[lisp.Nonce]*history
	smrs     map[netip.Addr]time.Time
	probes   map[probeKey]time.Time
	register time.Time
	changed  bool // since the last Map-Register

	sent, got           [numWhats]uint64
	octetsIn, octetsOut uint64
}

type requestKey struct {
	iid    uint32
	prefix netip.Prefix
}

type probeKey struct{ from, to netip.Addr }

type history struct {
	last    time.Time
	invoked time.Time // last SMR-invoked one
	n       int       // without an answer or a pause of 30 s
	total   uint64
	nonces  []lisp.Nonce
}

// notifyKey is a Map-Notify: where it goes and its nonce.
type notifyKey struct {
	to    netip.AddrPort
	nonce lisp.Nonce
}

func newJudge(t testing.TB) *judge {
	return &judge{t: t, asked: make(map[notifyKey]bool), news: make(map[notifyKey]*history)}
}

func (j *judge) node(nd *netsim.Node) *rates {
	for nd.Index() >= len(j.nodes) {
		j.nodes = append(j.nodes, nil)
	}
	r := j.nodes[nd.Index()]
	if r == nil {
		r = &rates{
			requests: make(map[requestKey]*history), nonces: make(map[lisp.Nonce]*history),
			smrs: make(map[netip.Addr]time.Time), probes: make(map[probeKey]time.Time),
		}
		j.nodes[nd.Index()] = r
	}
	return r
}

func (j *judge) trace(r netsim.Record) {
	if r.Kind == netsim.Injected && lisp.TypeOf(r.Bytes) == lisp.TypeMapRegister && len(r.Bytes) >= 12 {
		j.asked[notifyKey{r.From, nonceOf(r.Bytes)}] = true
	}
	if r.Kind != netsim.Sent && r.Kind != netsim.Delivered {
		return
	}
	n := j.node(r.Node)
	if r.Kind == netsim.Delivered {
		n.octetsIn += uint64(len(r.Bytes))
		j.delivered(n, r)
		return
	}
	n.octetsOut += uint64(len(r.Bytes))
	if n.free {
		return
	}
	w := j.judge(n, r)
	n.sent[w]++
	j.sent[w]++
	j.total++
}

// delivered notes what allows something to be sent.
func (j *judge) delivered(n *rates, r netsim.Record) {
	switch lisp.TypeOf(r.Bytes) {
	case lisp.TypeMapRegister:
		n.got[aRegister]++
	case lisp.TypeMapNotify:
		n.got[aNotify]++
	case lisp.TypeMapRequest:
		n.got[aProbe]++ // or SMR
	case lisp.TypeEncapsulatedControl:
		n.got[aRequest]++
	case lisp.TypeMapReply:
		n.got[aReply]++
		if len(r.Bytes) < 12 {
			return
		}
		// What is answered may be asked for again: its locators may go down.
		if h := n.nonces[nonceOf(r.Bytes)]; h != nil {
			h.n = 0
		}
	default:
	}
}

func nonceOf(b []byte) lisp.Nonce {
	var n lisp.Nonce
	for _, c := range b[4:12] {
		n = n<<8 | lisp.Nonce(c)
	}
	return n
}

func (j *judge) bad(r netsim.Record, format string, args ...any) {
	j.t.Helper()
	j.t.Errorf("%v: %s", r, fmt.Sprintf(format, args...))
}

func (j *judge) judge(n *rates, r netsim.Record) what {
	var err error
	w := aRequest
	switch t := lisp.TypeOf(r.Bytes); t {
	case lisp.TypeMapRequest:
		err = j.request.DecodeFromBytes(r.Bytes)
		switch {
		case err != nil:
		case j.request.Probe:
			w = aProbe
			j.probe(n, r)
		case j.request.SMR:
			w = anSMR
			j.smr(n, r)
		default:
			j.bad(r, "a Map-Request to an EID must be encapsulated")
		}
	case lisp.TypeMapReply:
		w = aReply
		if err = j.reply.DecodeFromBytes(r.Bytes); err == nil && j.reply.Probe {
			w = aProbeReply
		}
	case lisp.TypeMapRegister:
		w = aRegister
		if err = j.register.DecodeFromBytes(r.Bytes); err == nil {
			// A change is registered at once.
			if gap := r.At.Sub(n.register); gap < time.Second && !n.changed { // RFC 9301-5.7-1
				j.bad(r, "Map-Registers %v apart", gap)
			}
			n.register, n.changed = r.At, false
			j.asked[notifyKey{r.From, j.register.Nonce}] = true
		}
	case lisp.TypeMapNotify:
		w = aNotify
		if err = j.notify.DecodeFromBytes(r.Bytes); err == nil {
			j.mapNotify(r)
		}
	case lisp.TypeMapNotifyAck:
		w = anAck
		err = j.ack.DecodeFromBytes(r.Bytes)
	case lisp.TypeEncapsulatedControl:
		var in lisp.Inner
		if err = j.ecm.DecodeFromBytes(r.Bytes); err == nil {
			in, err = j.ecm.Inner()
		}
		if err == nil {
			err = j.request.DecodeFromBytes(in.Payload)
		}
		switch {
		case err != nil:
		case r.Where == "ms":
			w = aForward
		default:
			if j.request.SMRInvoked {
				w = anSMRInvoked
			}
			j.mapRequest(n, r)
		}
	default:
		j.bad(r, "unexpected %v", t)
	}
	if err != nil {
		j.bad(r, "does not parse: %v", err)
	}
	return w
}

// mapNotify checks those that tell, unasked, that a mapping moved.
func (j *judge) mapNotify(r netsim.Record) {
	k := notifyKey{r.To, j.notify.Nonce}
	if j.asked[k] {
		return
	}
	h := j.news[k]
	if h == nil {
		h = new(history)
		j.news[k] = h
	}
	if gap := r.At.Sub(h.last); gap < 3*time.Second { // RFC 9301-5.7-2
		j.bad(r, "unsolicited Map-Notifies %v apart", gap)
	}
	h.last = r.At
	if h.n++; h.n > 7 {
		j.bad(r, "unsolicited Map-Notify sent again more than six times")
	}
}

func (j *judge) mapRequest(n *rates, r netsim.Record) {
	m := &j.request
	if len(m.Records) != 1 { // RFC 9301-5.2-8
		j.bad(r, "%d records", len(m.Records))
		return
	}
	iid, p, _ := m.Records[0].Prefix()
	h := n.requests[requestKey{iid, p}]
	if h == nil {
		h = new(history)
		n.requests[requestKey{iid, p}] = h
	}
	gap := r.At.Sub(h.last)
	if gap < time.Second { // RFC 9301-5.3-5
		j.bad(r, "Map-Requests for %v %v apart", p, gap)
	}
	if gap >= 30*time.Second {
		h.n = 0
		for _, nonce := range h.nonces {
			delete(n.nonces, nonce)
		}
		h.nonces = h.nonces[:0]
	}
	if h.n++; h.n > 11 { // RFC 9301-5.3-6
		j.bad(r, "no silence after ten retransmissions")
	}
	if m.SMRInvoked {
		if gap := r.At.Sub(h.invoked); gap < 3*time.Second { // RFC 9301-6.1-4
			j.bad(r, "SMR-invoked Map-Requests %v apart", gap)
		}
		h.invoked = r.At
	}
	h.last = r.At
	h.total++
	h.nonces = append(h.nonces, m.Nonce)
	n.nonces[m.Nonce] = h
}

func (j *judge) smr(n *rates, r netsim.Record) {
	to := r.To.Addr()
	if gap := r.At.Sub(n.smrs[to]); gap < 3*time.Second { // RFC 9301-6.1-3
		j.bad(r, "SMRs to one RLOC %v apart", gap)
	}
	n.smrs[to] = r.At
}

func (j *judge) probe(n *rates, r netsim.Record) {
	k := probeKey{r.From.Addr(), r.To.Addr()}
	if gap := r.At.Sub(n.probes[k]); gap < time.Second {
		j.bad(r, "RLOC-probes on one path %v apart", gap)
	}
	n.probes[k] = r.At
}

// summary is the messages by type.
func (j *judge) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d messages", j.total)
	for w, c := range j.sent {
		if c > 0 {
			fmt.Fprintf(&b, ", %d %s", c, whatNames[w])
		}
	}
	return b.String()
}

// percentile of some durations.
func percentile(ds []time.Duration, p float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	s := slices.Clone(ds)
	slices.Sort(s)
	return s[min(len(s)-1, int(float64(len(s))*p))]
}
