package topview

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/socktest"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

var started = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// node is a state, n seconds after the start: locator .20 has got n MB, most of it for
// EID .5, and sent n packets, from EID .4; .30 nothing.
func node(n uint64) statusd.Status {
	a, b := netip.MustParseAddr("203.0.113.20"), netip.MustParseAddr("203.0.113.30")
	in := statusd.Counter{Packets: n, Octets: 100 * n}
	entry := func(prefix string, as ...netip.Addr) statusd.Entry {
		e := statusd.Entry{Prefix: netip.MustParsePrefix(prefix), Created: started, Expires: started.Add(time.Hour)}
		for _, a := range as {
			e.RLOCs = append(e.RLOCs, statusd.RLOC{Addr: a, State: "up", Priority: 1, Weight: 100})
		}
		return e
	}
	out := statusd.Counter{Packets: 1000 * n, Octets: 1_000_000 * n}
	es := []statusd.Entry{entry("192.0.2.3/32", b), entry("192.0.2.4/32", a), entry("192.0.2.5/32", a), entry("192.0.2.128/25")}
	es[1].Out, es[1].In = statusd.Counter{Packets: 100 * n, Octets: 10_000 * n}, in
	es[2].Out = statusd.Counter{Packets: 900 * n, Octets: 990_000 * n}
	return statusd.Status{
		Program: "lispmn", Started: started, Time: started.Add(time.Duration(n) * time.Second),
		Node: &statusd.Node{
			EIDs:          []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
			Registrations: []statusd.Registration{{State: "registered"}, {State: "unanswered"}},
			MapCache:      es,
			Paths:         []statusd.Path{{Remote: a, RTT: 12_100 * time.Microsecond}, {Remote: a, RTT: 30 * time.Millisecond}},
			Traffic: statusd.Traffic{Encapsulated: out, Locators: []statusd.LocatorTraffic{
				{Addr: a, Out: out, In: in},
			}},
		},
	}
}

func lines(m model) []string {
	return strings.Split(ansi.Strip(m.draw()), "\n")
}

func TestDraw(t *testing.T) {
	m := model{}.take(look{status: node(1)}).take(look{status: node(3)})
	want := []string{
		"lispmn  up 3s",
		"EIDs 192.0.2.1/32   map-cache 4   registered 1 of 2   waiting packets 0",
		"to LISP sites 8.00 Mbit/s 1.00 k packets/s   from them 0 bit/s 0 packets/s   native 0 bit/s 0 packets/s",
		"LOCATOR       STATE  RTT     OUT bit/s  IN bit/s  OUT packets/s  IN packets/s  OUT total  IN total  EIDs",
		"203.0.113.20  up     12.1ms  8.00 M     800       1.00 k         1             3.00 MB    300 B     2",
		"203.0.113.30  up     -       0          0         0              0             0 B        0 B       1",
		"",
		"EID-PREFIX      OUT bit/s  IN bit/s  EXPIRES  OUT packets/s  IN packets/s  OUT total  IN total  LOCATORS pri/wgt",
		"192.0.2.5/32    7.92 M     0         59m57s   900            0             2.97 MB    0 B       203.0.113.20 1/100",
		"192.0.2.4/32    80.0 k     800       59m57s   100            1             30.0 kB    300 B     203.0.113.20 1/100",
		"192.0.2.3/32    0          0         59m57s   0              0             0 B        0 B       203.0.113.30 1/100",
		"192.0.2.128/25  0          0         59m57s   0              0             0 B        0 B       negative",
		"",
		"sorted by rate (s)  pause (p)  quit (q)",
	}
	assert.Equal(t, want, lines(m))

	// An entry that went and came again has no past.
	again := node(4)
	again.Node.MapCache[2].Created = started.Add(4 * time.Second)
	again.Node.MapCache[2].Out = statusd.Counter{Packets: 7, Octets: 700}
	assert.Contains(t, strings.Join(lines(m.take(look{status: again})), "\n"), "192.0.2.5/32    5.60 k     0         59m56s   7 ")

	m.width, m.height = 30, 12
	for _, l := range lines(m) {
		assert.LessOrEqual(t, len(l), 40, l) // of the keys
	}
	assert.Contains(t, lines(m), "and 2 more", "of the EID-Prefixes")
}

// TestTerminal: in 80 columns and 24 lines all is to be seen, with columns left out rather than cut
// numbers, and with the room that one table does not need in the other.
func TestTerminal(t *testing.T) {
	state := func(entries, locators int) statusd.Status {
		st := node(1)
		st.Node.EIDs = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("2001:db8:7::7/128")}
		st.Node.MapCache, st.Node.Traffic.Locators = nil, nil
		for i := range entries {
			st.Node.MapCache = append(st.Node.MapCache, statusd.Entry{
				Prefix: netip.MustParsePrefix(fmt.Sprintf("2001:db8:aaaa:bbbb:cccc:dddd:eeee:%x/128", 0x1000+i)), Action: "drop",
			})
		}
		for i := range locators {
			st.Node.Traffic.Locators = append(st.Node.Traffic.Locators, statusd.LocatorTraffic{Addr: netip.MustParseAddr(fmt.Sprintf("2001:db8:1234:5678:9abc:def0:1234:%x", 0x1000+i))})
		}
		return st
	}
	for _, tc := range []struct{ entries, locators, seenEntries, seenLocators int }{
		{30, 30, 6, 6}, {30, 1, 11, 1}, {1, 30, 1, 11}, {30, 0, 12, 0}, {2, 3, 2, 3},
	} {
		m := model{width: 80, height: 24}.take(look{status: state(tc.entries, tc.locators)})
		ls := lines(m)
		assert.LessOrEqual(t, len(ls), 24, tc)
		for _, l := range ls {
			assert.LessOrEqual(t, len(l), 80, l)
		}
		all := strings.Join(ls, "\n")
		assert.Equal(t, tc.seenEntries, strings.Count(all, "2001:db8:aaaa:"), "%+v\n%s", tc, all)
		assert.Equal(t, tc.seenLocators, strings.Count(all, "2001:db8:1234:"), "%+v\n%s", tc, all)
		assert.Contains(t, all, "OUT bit/s  IN bit/s  EXPIRES\n", "whole columns")
		assert.Contains(t, all, "waiting packets 0")
		assert.Contains(t, all, "native 0 bit/s")
		assert.Contains(t, ls[len(ls)-1], "quit (q)")
		m.err = errors.New("gone")
		assert.LessOrEqual(t, len(lines(m)), 24, tc)
	}
}

func TestUpdate(t *testing.T) {
	press := func(m model, key rune) model {
		next, _ := m.Update(tea.KeyPressMsg{Code: key, Text: string(key)})
		return next.(model)
	}
	m := model{}.take(look{status: node(1)}).take(look{status: node(2)})
	m = press(press(m, 's'), 's')
	assert.Equal(t, byAddress, m.sorting)
	assert.Contains(t, lines(m)[8], "192.0.2.3/32", "by address")
	assert.Equal(t, byRate, press(m, 's').sorting)

	m = press(m, 'p').take(look{status: node(3)})
	assert.Equal(t, node(2).Time, m.now.Time, "paused")
	m = press(m, 'p').take(look{err: errors.New("nothing runs")})
	assert.Contains(t, lines(m)[0], "nothing runs")
	assert.Contains(t, lines(m)[1], "lispmn", "what was known stays in view")

	again := node(1)
	again.Started = started.Add(time.Minute)
	m = m.take(look{status: again})
	assert.Zero(t, m.rate(again.Node.Traffic.Encapsulated, statusd.Counter{}), "no rate over a restart")

	next, cmd := m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	assert.Nil(t, cmd)
	assert.Equal(t, 24, next.(model).height)
	_, cmd = m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"})
	assert.Equal(t, tea.Quit(), cmd())
}

func TestMapServerHasNoTraffic(t *testing.T) {
	m := model{}.take(look{status: statusd.Status{Program: "lispms", MapServer: &statusd.MapServer{}}})
	assert.Contains(t, lines(m)[0], "is not a node with a data plane")
}

func TestAmount(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0 ", 999.4: "999 ", 999.6: "1.00 k", 9994: "9.99 k", 99940: "99.9 k", 123456: "123 k", 1e9: "1.00 G", 2e21: "2000 E",
	} {
		assert.Equal(t, want, amount(v), "%v", v)
	}
}

// screen is what the program writes; it tells when something has been shown.
type screen struct {
	mu    sync.Mutex
	b     bytes.Buffer
	want  string
	shown chan struct{}
	once  sync.Once
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Write(p)
	if strings.Contains(ansi.Strip(s.b.String()), s.want) {
		s.once.Do(func() { close(s.shown) })
	}
	return len(p), nil
}

// The whole program against a real socket: it shows the node and quits when asked to.
func TestProgram(t *testing.T) {
	path := filepath.Join(socktest.Dir(t), "s")
	s, err := statusd.Listen(statusd.Config{Path: path, Snapshot: func(context.Context) (statusd.Status, error) { return node(1), nil }})
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Run(t.Context()) }()

	in, keys := io.Pipe()
	out := &screen{want: "203.0.113.20", shown: make(chan struct{})}
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- Main(t.Context(), nil, path, out, &stderr, tea.WithInput(in), tea.WithWindowSize(120, 30), tea.WithEnvironment([]string{"TERM=xterm"}))
	}()
	<-out.shown
	_, err = keys.Write([]byte("q"))
	require.NoError(t, err)
	assert.Zero(t, <-code, stderr.String())

	require.NoError(t, s.Close())
	require.NoError(t, <-served)
	assert.Equal(t, 1, Main(t.Context(), nil, path, out, &stderr))
	assert.Contains(t, stderr.String(), "nothing runs at "+path)
	assert.Equal(t, 2, Main(t.Context(), []string{"all"}, path, out, &stderr))
}
