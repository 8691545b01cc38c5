package statusd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// socketDir returns a directory of a test's own with a short name.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(TempDir(), "xtrkit-") //nolint:usetesting // that has a long name
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// start runs a server and returns it with a client.
func start(t *testing.T, snapshot func(context.Context) (Status, error)) (*Server, *Client) {
	t.Helper()
	path := filepath.Join(socketDir(t), "dir", "s.sock")
	s, err := Listen(Config{Path: path, Snapshot: snapshot})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.NoError(t, <-done)
		assert.NoFileExists(t, path)
	})
	return s, NewClient(path)
}

func TestStatus(t *testing.T) {
	t.Parallel()
	want := Status{
		Program: "lispmn", PID: 7, Started: time.Unix(1000, 0).UTC(), Time: time.Unix(2000, 5).UTC(),
		Node: &Node{
			Device: "lmn0", EIDs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
			MapCache: []Entry{{Prefix: netip.MustParsePrefix("192.0.2.2/32"), RLOCs: []RLOC{{Addr: netip.MustParseAddr("10.0.2.2"), Weight: 1, State: "up"}}}},
			Traffic:  Traffic{Drops: map[string]uint64{"ttl": 3}},
		},
	}
	fail := false
	_, c := start(t, func(context.Context) (Status, error) {
		if fail {
			return Status{}, errors.New("the loop has ended")
		}
		return want, nil
	})
	got, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, want, got)

	fail = true
	_, err = c.Status(t.Context())
	require.ErrorContains(t, err, "the loop has ended")
}

func TestEvents(t *testing.T) {
	t.Parallel()
	s, c := start(t, nil)
	s.Publish(Event{Kind: "one"})
	s.Publish(Event{Kind: "two"})

	got := make(chan Event)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Events(t.Context(), 1, func(e Event) error { got <- e; return nil })
	}()
	assert.Equal(t, Event{Seq: 2, Kind: "two"}, <-got)
	s.Publish(Event{Kind: "three", Data: []byte(`{"n":3}`)})
	e := <-got
	assert.Equal(t, uint64(3), e.Seq)
	var data struct{ N int }
	require.NoError(t, e.Decode(&data))
	assert.Equal(t, 3, data.N)

	// The client ends it.
	enough := errors.New("enough")
	err := c.Events(t.Context(), 0, func(e Event) error {
		if e.Seq == 2 {
			return enough
		}
		return nil
	})
	require.ErrorIs(t, err, enough)
	ctx, cancel := context.WithCancel(t.Context())
	err = c.Events(ctx, 2, func(Event) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)

	// The server ends it, after the last event.
	s.Publish(Event{Kind: "last"})
	go func() { _ = s.Close() }()
	assert.Equal(t, "last", (<-got).Kind)
	require.NoError(t, <-ended)
	require.ErrorContains(t, c.Events(t.Context(), 0, nil), "nothing runs at")
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	_, c := start(t, nil)
	_, err := c.get(t.Context(), "/events?after=x")
	require.ErrorContains(t, err, "not a sequence number")
	_, err = c.get(t.Context(), "/nothing")
	require.ErrorContains(t, err, "404")
	resp, err := c.http.Post("http://unix/status", "", http.NoBody)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	assert.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
}

// TestRing checks that what is kept is the newest.
func TestRing(t *testing.T) {
	t.Parallel()
	l := newLog()
	es, _ := l.after(0)
	assert.Empty(t, es)
	for range keptEvents + 10 {
		l.add(kept{})
	}
	es, more := l.after(0)
	require.Len(t, es, keptEvents)
	for i, e := range es {
		require.Equal(t, uint64(11+i), e.Seq)
	}
	es, _ = l.after(keptEvents + 8)
	assert.Len(t, es, 2)
	es, _ = l.after(1 << 40) // a client of an earlier run
	assert.Empty(t, es)
	select {
	case <-more:
		t.Fatal("there is nothing more")
	default:
	}
	l.add(kept{})
	<-more
}

// told counts how often it is put into words.
type told struct {
	N     int
	count *int
}

func (e told) String() string {
	*e.count++
	return "told"
}

// TestTell: an event that nobody reads is never put into words, and costs no more
// than its place; who reads gets what Publish would have given.
func TestTell(t *testing.T) {
	s := &Server{events: newLog()}
	count := 0
	var e fmt.Stringer = told{7, &count}
	at := time.Now()
	for range keptEvents {
		s.Tell(at, e)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { s.Tell(at, e) }))
	assert.Zero(t, count)
	es, more := s.events.after(keptEvents + 99)
	want := Describe(at, "told", e)
	want.Seq = keptEvents + 100
	for i := range es {
		want.Seq = es[i].Seq
		assert.Equal(t, want, es[i])
	}
	assert.Len(t, es, 2)
	assert.Equal(t, 2, count, "only what is read")
	s.Tell(at, e)
	<-more
	s.Publish(Event{Text: "as it is"})
	es, _ = s.events.after(es[1].Seq + 1)
	require.Len(t, es, 1)
	assert.Equal(t, "as it is", es[0].Text)
}

func TestTwoServers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDir(t), "s.sock")
	a, err := Listen(Config{Path: path})
	require.NoError(t, err)
	_, err = Listen(Config{Path: path})
	require.ErrorIs(t, err, ErrRunning)
	require.ErrorContains(t, err, "process ")
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	b, err := Listen(Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.NoError(t, b.Run(t.Context()), "closed before it ran")
}

// TestCloseCuts: a client that asks nothing, or does not end, does not keep a server from
// ending, which is no error.
func TestCloseCuts(t *testing.T) {
	t.Parallel()
	s, c := start(t, func(context.Context) (Status, error) { return Status{Node: &Node{}}, nil })
	silent, err := net.Dial("unix", c.path)
	require.NoError(t, err)
	defer silent.Close()
	_, err = c.Status(t.Context()) // the other connection has been accepted, too
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = silent.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestLeftovers(t *testing.T) {
	t.Parallel()
	dir := socketDir(t)
	path := filepath.Join(dir, "s.sock")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // as after kill -9
	require.NoError(t, ln.Close())
	s, err := Listen(Config{Path: path})
	require.NoError(t, err)
	fi, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	require.NoError(t, s.Close())

	file := filepath.Join(dir, "precious")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	_, err = Listen(Config{Path: file})
	require.ErrorContains(t, err, "is not a socket")
	assert.FileExists(t, file)
	_, err = Listen(Config{Path: ""})
	require.Error(t, err)
	_, err = Listen(Config{Path: filepath.Join(file, "s.sock")})
	require.Error(t, err)
}

type mapRequestSent struct {
	Nonce int
	At    time.Time `json:"-"`
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 0)
	e := Describe(at, "text", &mapRequestSent{Nonce: 5})
	assert.Equal(t, Event{Time: at, Kind: "map-request-sent", Text: "text", Data: []byte(`{"Nonce":5}`)}, e)
	for in, want := range map[string]string{
		"Registered": "registered", "EIDMoved": "eid-moved", "ProbeRTT": "probe-rtt", "X": "x", "": "",
	} {
		assert.Equal(t, want, kebab(in))
	}
}

type flavour uint8

func (flavour) String() string { return "sweet" }

type refused struct {
	Reason flavour
	Err    error
	Wait   time.Duration
	hidden int //nolint:unused // must not show
}

// TestDescribeText: errors and named numbers are told by their text.
func TestDescribeText(t *testing.T) {
	e := Describe(time.Now(), "text", refused{Reason: 7, Err: errors.New("no key"), Wait: 5})
	require.JSONEq(t, `{"Reason":"sweet","Err":"no key","Wait":5}`, string(e.Data))
}

// TestActions: what is asked is done, and what goes wrong is told in its own words.
func TestActions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDir(t), "s.sock")
	s, err := Listen(Config{
		Path: path,
		Actions: map[string]Action{ActionLookup: ActionOf(func(_ context.Context, in Target) (Entry, error) {
			if !in.Addr.IsValid() {
				return Entry{}, errors.New("of which EID?")
			}
			return Entry{Origin: "map-reply", Prefix: netip.PrefixFrom(in.Addr, 24)}, nil
		})},
		Capture: func(_ context.Context, interfaces []string, w io.Writer) error {
			if len(interfaces) == 0 {
				return errors.New("of which interface?")
			}
			_, err := fmt.Fprint(w, interfaces)
			return err
		},
	})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	c := NewClient(path)
	var e Entry
	require.NoError(t, c.Do(t.Context(), ActionLookup, Target{Addr: netip.MustParseAddr("192.0.2.1")}, &e))
	assert.Equal(t, Entry{Origin: "map-reply", Prefix: netip.MustParsePrefix("192.0.2.1/24")}, e)
	require.EqualError(t, c.Do(t.Context(), ActionLookup, Target{}, &e), "of which EID?")
	require.EqualError(t, c.Do(t.Context(), ActionFlush, Nothing{}, &e), "this program cannot flush")
	require.ErrorContains(t, c.Do(t.Context(), ActionLookup, "x", &e), "the request is not understood")
	require.Error(t, c.Do(t.Context(), ActionLookup, strings.Repeat("x", maxRequest), &e))
	var b bytes.Buffer
	require.NoError(t, c.Capture(t.Context(), []string{"a", "b"}, &b))
	assert.Equal(t, "[a b]", b.String())
	require.EqualError(t, c.Capture(t.Context(), nil, &b), "of which interface?")

	s.Publish(Event{Kind: "x"})
	s.Publish(Event{Kind: "y"})
	last := uint64(0)
	require.NoError(t, c.Past(t.Context(), func(e Event) { last = e.Seq }))
	assert.Equal(t, uint64(2), last)
	require.NoError(t, s.Close())
	require.NoError(t, <-done)
	require.ErrorContains(t, c.Past(t.Context(), nil), "nothing runs at")
	assert.Equal(t, "a (warning)\nchanged: b\nneeds a restart: c\n", Reloaded{Warnings: []string{"a"}, Changes: []string{"b"}, Restart: []string{"c"}}.String())
	assert.Equal(t, "nothing changed\n", Reloaded{}.String())
}
