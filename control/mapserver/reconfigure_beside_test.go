package mapserver

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// TestReconfigureBesideRequests: Workers answer meanwhile, and read nothing that is
// written.
func TestReconfigureBesideRequests(t *testing.T) {
	change := func(c *Config) {
		c.Sites[0].ProxyReply, c.NAT.LispersNet, c.RatePerSource, c.RateTotal = true, true, -1, -1
	}
	b := newBench(t, change)
	b.registerAll()
	w, done, answers := b.s.NewWorker(), make(chan struct{}), 0
	msg := request(t, itr, "10.1.2.3")
	go func() {
		defer close(done)
		for range 100 {
			answers += len(w.Handle(start, lisp.Datagram{Local: msAddr, Remote: itr, Bytes: msg}).Out)
		}
	}()
	for running := true; running; {
		b.reconfigure(change)
		select {
		case <-done:
			running = false
		default:
		}
	}
	assert.Equal(t, 100, answers)
}

// TestReconfigureWhileVerifying: the key goes between the look at a Map-Register and the
// Map-Notify for it.
func TestReconfigureWhileVerifying(t *testing.T) {
	b := newBench(t)
	again := func(nonce lisp.Nonce) []byte {
		return register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withNonce(nonce), withXTR(xtr1))
	}
	require.Len(t, b.put(etr1, again(1)), 1)
	w := b.s.NewWorker()
	d := lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: again(2)}
	r := w.Handle(b.now, d)
	require.NotNil(t, r.Update)
	require.NotEmpty(t, r.Update.refresh)
	require.Len(t, r.Out, 1)
	b.reconfigure(func(c *Config) { c.Sites[0].Keys = []lisp.Key{key1b} })
	w.reset()
	w.acknowledge(r.Update, d)
	assert.Empty(t, w.result.Out)
	assert.Empty(t, w.buf)
}

// TestSitesWhileReconfigured: what is listed while a site goes whose registrations are
// still there, or comes, is one or the other.
func TestSitesWhileReconfigured(t *testing.T) {
	b := newBench(t)
	b.registerAll()
	set := b.s.set()
	d, err := b.s.compile(&Config{Sites: testSites()[1:]})
	require.NoError(t, err)
	b.s.putInForce(d)
	var names []string
	for _, s := range b.s.Sites(b.now) {
		names = append(names, s.Name)
	}
	assert.Equal(t, []string{"b", "c"}, names)
	d, err = b.s.compile(&Config{Sites: testSites()})
	require.NoError(t, err)
	before := b.s.set()
	b.s.putInForce(d)
	b.s.settings.Store(before) // the tables come before the settings
	assert.Len(t, b.s.Sites(b.now), 2)
	b.s.settings.Store(set)
	assert.Len(t, b.s.Sites(b.now), 3)
}

// TestReconfigureHistory: it says why a registration is no more.
func TestReconfigureHistory(t *testing.T) {
	b := newBench(t)
	b.registerAll()
	b.reconfigure(func(c *Config) { c.Sites = c.Sites[:2] })
	h := b.s.History()
	require.IsType(t, Removed{}, h[len(h)-1].Event)
	assert.Equal(t, "removed [7]172.16.0.0/16 of site c last registered by 192.0.2.11", h[len(h)-1].Event.String())
}

// TestReconfigureNotifies: who belongs to no site any more hears nothing more, of
// what moved before or as a subscriber.
func TestReconfigureNotifies(t *testing.T) {
	other := lisp.Key{ID: 1, Algorithm: key1.Algorithm, Secret: []byte("another")}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		moved  int // Map-Notifies of a move that is not acknowledged
		subs   int
	}{
		{"nothing", func(*Config) {}, 1, 1},
		{"the site goes", func(c *Config) { c.Sites = c.Sites[1:] }, 0, 0},
		{"it is another one", func(c *Config) { c.Sites[0].Name = "new" }, 0, 0},
		{"the key goes", func(c *Config) { c.Sites[0].Keys = []lisp.Key{key1b} }, 1, 0},
		{"the key is another one", func(c *Config) { c.Sites[0].Keys[0] = other }, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := pubSub(t)
			publication(t, b.put(itr, request(t, itr, "10.7.0.0/16", subscribing)))
			b.put(etr1, register(t, key1b, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr2)))
			b.put(etr2, register(t, key1b, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(lisp.XTRID{15: 3})))
			require.Equal(t, 1, b.s.notifies.count)
			b.reconfigure(tt.change)
			b.drain()
			assert.Equal(t, tt.moved, b.s.notifies.count)
			assert.Equal(t, tt.subs, b.s.Stats().Subscriptions)
			b.advance(4 * time.Second)
			assert.Len(t, b.drain(), tt.moved)
		})
	}
}

// TestSubscribeLispersNet: a subscriber hears what it would be answered, whoever has
// asked last.
func TestSubscribeLispersNet(t *testing.T) {
	b := pubSub(t, lispersNet)
	b.put(itr, request(t, itr, "10.1.0.0/16", subscribing))
	for i, global := range []string{"198.51.100.7", "198.51.100.8"} {
		rec := record("10.1.0.0/16", 10, global, rtr1.Addr().String(), "203.0.113.20")
		rec.Locators[1].Priority, rec.Locators[2].Priority = natt.PriorityRTR, natt.PriorityRTR
		rec.Locators = rec.Locators[:2+i]
		m := publication(t, b.put(etr1, register(t, key1b, rec, withXTR(xtr2), withTTL, withoutNotify)))
		assert.Equal(t, []string{rtr1.Addr().String(), "203.0.113.20"}[:1+i], rlocsOf(m.Records[0].Locators))
		b.ack(m, key1)
		b.put(rtr1, request(t, rtr1, "10.1.2.3"))
	}
}

// TestLoadDamaged: whatever is wrong with a file, nothing lives longer for it.
func TestLoadDamaged(t *testing.T) {
	a := newBench(t)
	require.Len(t, a.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))), 1)
	var file bytes.Buffer
	require.NoError(t, a.s.Save(a.now, &file))
	for i := range file.Len() {
		{
			damaged := bytes.Clone(file.Bytes())
			damaged[i] ^= 1 << (i % 8)
			b := newBench(t)
			_, _, err := b.s.Load(b.now, bytes.NewReader(damaged))
			require.Error(t, err, "octet %d", i)
			require.Empty(t, b.s.Registrations(b.now))
		}
	}
}

// TestSubscribeThroughNAT: who asks from behind a NAT, where no Map-Notify would find
// it, is answered as if it had not wanted to subscribe.
func TestSubscribeThroughNAT(t *testing.T) {
	b := pubSub(t, lispersNet)
	b.put(natted, register(t, key1, record("10.9.0.0/16", 10, inside.Addr().String()), withXTR(xtr1), withProxy))
	b.put(etr1, register(t, key1b, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr2), withProxy))
	require.Len(t, b.put(natted, named(t)), 1)
	out := b.put(natted, request(t, inside, "10.1.0.0/16", subscribing))
	require.Len(t, out, 1)
	assert.Equal(t, natted, out[0].Remote)
	assert.Equal(t, lisp.TypeMapReply, lisp.TypeOf(out[0].Bytes))
	assert.Zero(t, b.s.Stats().Subscriptions)
}

// TestReconfigureDenySubscriber: a subscriber hears that a site is denied, as who asks
// would, and that it is no more; also of a part of what it has subscribed to.
func TestReconfigureDenySubscriber(t *testing.T) {
	for _, tt := range []struct {
		deny   Deny
		action lisp.Action
		ttl    uint32
	}{
		{DenyPolicy, lisp.ActionDropPolicyDenied, 15},
		{DenyTemporary, lisp.ActionSendMapRequest, 1},
	} {
		inner := func(c *Config) { // that of the subscriber is another one
			c.Sites[0].Prefixes[0].Prefix = netip.MustParsePrefix("10.9.0.0/16")
			c.Sites[1].Keys = []lisp.Key{key1b}
			c.Sites[1].Prefixes = []SitePrefix{{Prefix: netip.MustParsePrefix("10.1.0.0/16")}}
			c.Sites = append(c.Sites, Site{Name: "d", Keys: []lisp.Key{key1}, Prefixes: []SitePrefix{{Prefix: netip.MustParsePrefix("10.0.0.0/13")}}})
		}
		denied := func(c *Config) { inner(c); c.Sites[1].Deny = tt.deny }
		for _, about := range []string{"10.1.0.0/16", "10.0.0.0/13"} {
			b := pubSub(t, inner)
			publication(t, b.put(itr, request(t, itr, about, subscribing)))
			last := func(m *lisp.MapNotify) *lisp.EIDRecord { return &m.Records[len(m.Records)-1] }

			b.reconfigure(denied)
			m := publication(t, b.drain())
			rec := last(m)
			_, p, _ := rec.Prefix()
			assert.Equal(t, "10.1.0.0/16", p.String(), about)
			assert.Empty(t, rec.Locators, "%v", m)
			assert.Equal(t, tt.action, rec.Action)
			assert.Equal(t, tt.ttl, rec.TTL)
			b.ack(m, key1)

			b.reconfigure(denied)
			assert.Empty(t, b.drain(), "nothing new")
			b.moveTo("192.0.2.77")
			assert.Empty(t, b.drain(), "nor is where it is")

			b.reconfigure(inner)
			m = publication(t, b.drain())
			assert.Equal(t, []string{"192.0.2.77"}, rlocsOf(last(m).Locators), about)
		}
	}
}
