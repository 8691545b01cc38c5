package statusd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Client talks to the Server at a socket. It is safe for concurrent use.
type Client struct {
	path     string
	http     http.Client
	patience time.Duration // how long the program may take to tell its state
}

// patience is more than enough for what takes a program milliseconds.
const patience = 10 * time.Second

// NewClient makes a client for the server at the socket path. Nothing is
// connected until it is used.
func NewClient(path string) *Client {
	return &Client{path: path, patience: patience, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true, // a connection must not outlive a server that is replaced
	}}}
}

func (c *Client) get(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.ask(ctx, http.MethodGet, path, nil)
}

func (c *Client) ask(ctx context.Context, method, path string, content io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://unix"+path, content)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without an address that nobody wrote
		}
		switch { // EOF and the like: the program was just ending
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
			return nil, fmt.Errorf("nothing runs at %s (is the program started, with another control-socket?): %w", c.path, err)
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusUnprocessableEntity {
			return nil, errors.New(strings.TrimSpace(string(b)))
		}
		return nil, fmt.Errorf("%s: %s: %s", c.path, resp.Status, strings.TrimSpace(string(b)))
	}
	return resp.Body, nil
}

// Status returns the present state, of which one part at least is there.
func (c *Client) Status(ctx context.Context) (st Status, err error) {
	within, cancel := context.WithTimeoutCause(ctx, c.patience, fmt.Errorf("what runs at %s does not answer within %v", c.path, c.patience))
	defer cancel()
	defer func() {
		if err != nil && within.Err() != nil && ctx.Err() == nil {
			err = context.Cause(within)
		}
	}()
	body, err := c.get(within, "/status")
	if err != nil {
		return st, err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(&st); err != nil {
		return st, fmt.Errorf("%s: %w", c.path, err)
	}
	if st.Node == nil && st.MapServer == nil && st.RTR == nil {
		return st, fmt.Errorf("what runs at %s is neither lispmn nor lispms, or of another version", c.path)
	}
	return st, nil
}

// Events calls f for every event with a sequence number above after, those
// kept and then new ones, until f returns an error, which is returned, or the server
// ends, which is no error.
func (c *Client) Events(ctx context.Context, after uint64, f func(Event) error) error {
	return c.events(ctx, fmt.Sprintf("/events?after=%d", after), f)
}

// Past calls f for the events that are kept.
func (c *Client) Past(ctx context.Context, f func(Event)) error {
	return c.events(ctx, "/events?follow=0", func(e Event) error {
		f(e)
		return nil
	})
}

func (c *Client) events(ctx context.Context, path string, f func(Event) error) error {
	body, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("%s: %w", c.path, err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return ctx.Err()
}

// Do has the program do something, and reads the result into out. An error says
// why it did not.
func (c *Client) Do(ctx context.Context, action string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	body, err := c.ask(ctx, http.MethodPost, "/do/"+url.PathEscape(action), bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	return nil
}

// Capture copies what the program captures to w, until the context ends.
func (c *Client) Capture(ctx context.Context, interfaces []string, w io.Writer) error {
	body, err := c.get(ctx, "/capture?"+url.Values{"interface": interfaces}.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	_, err = io.Copy(w, body)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
