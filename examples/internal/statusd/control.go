package statusd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Action does something. The JSON of the request is read by it, that of the
// result is what the client gets; an error is told to the client as it is.
type Action func(ctx context.Context, request json.RawMessage) (any, error)

// ActionOf makes an Action of a function of types.
func ActionOf[In, Out any](f func(context.Context, In) (Out, error)) Action {
	return func(ctx context.Context, b json.RawMessage) (any, error) {
		var in In
		if err := json.Unmarshal(b, &in); err != nil {
			return nil, fmt.Errorf("the request is not understood: %w", err)
		}
		return f(ctx, in)
	}
}

// Names of actions, and what they take and give.
const (
	ActionReload = "reload" // Nothing, Reloaded
	ActionFlush  = "flush"  // Selection, Count
	ActionAdd    = "add"    // Change, Nothing
	ActionDel    = "del"    // Change, Nothing
	ActionProbe  = "probe"  // Target, []Path
	ActionLookup = "lookup" // Target, Entry
	ActionTrace  = "trace"  // Flow, Trace
)

// Nothing is the request of an Action that needs none.
type Nothing struct{}

// Count is how many were concerned.
type Count struct {
	Count int `json:"count"`
}

// Selection is a part of a table; the zero value is all of it.
type Selection struct {
	Within netip.Prefix `json:"within,omitzero"`
}

// Change is an entry to be added or removed.
type Change struct {
	Table  string        `json:"table"` // map-cache or database
	IID    uint32        `json:"iid,omitempty"`
	Prefix netip.Prefix  `json:"prefix"`
	RLOCs  []RLOC        `json:"rlocs,omitempty"` // none in the map-cache: it forwards natively
	TTL    time.Duration `json:"ttl,omitempty"`   // in the database
}

// Target is an EID or a locator.
type Target struct {
	Addr netip.Addr `json:"addr"`
}

// Flow is packets to be traced. Zero values are chosen by the program.
type Flow struct {
	Dst      netip.Addr `json:"dst"`
	Src      netip.Addr `json:"src,omitzero"`
	Protocol uint8      `json:"protocol,omitempty"`
	SrcPort  uint16     `json:"srcPort,omitempty"`
	DstPort  uint16     `json:"dstPort,omitempty"`
	Mark     uint32     `json:"mark,omitempty"`
}

// Trace is what becomes of a Flow.
type Trace struct {
	Flow
	Does       string     `json:"does"`            // encapsulate, forward natively, wait for a mapping, drop
	Why        []string   `json:"why"`             // step by step
	Entry      *Entry     `json:"entry,omitempty"` // of the map-cache
	Locator    netip.Addr `json:"locator,omitzero"`
	Port       uint16     `json:"port,omitempty"`
	Local      netip.Addr `json:"local,omitzero"`
	Interface  string     `json:"interface,omitempty"`
	SourcePort uint16     `json:"sourcePort,omitempty"` // 0: not known
	MTU        int        `json:"mtu,omitempty"`        // octets of the largest inner packet
}

// Reloaded is what a reload did.
type Reloaded struct {
	Changes  []string `json:"changes,omitempty"`  // in force now
	Restart  []string `json:"restart,omitempty"`  // in force after a restart only
	Warnings []string `json:"warnings,omitempty"` // what the file asks for and does not get
}

// String says it in lines.
func (r Reloaded) String() string {
	var b strings.Builder
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "%s (warning)\n", w)
	}
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "changed: %s\n", c)
	}
	for _, c := range r.Restart {
		fmt.Fprintf(&b, "needs a restart: %s\n", c)
	}
	if len(r.Changes)+len(r.Restart) == 0 {
		b.WriteString("nothing changed\n")
	}
	return b.String()
}

// maxRequest bounds what a client may send.
const maxRequest = 1 << 20

func (s *Server) do(w http.ResponseWriter, r *http.Request) {
	f := s.cfg.Actions[r.PathValue("action")]
	if f == nil {
		http.Error(w, "this program cannot "+r.PathValue("action"), http.StatusUnprocessableEntity)
		return
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := f(r.Context(), b)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// capture streams until the client or the server goes.
func (s *Server) capture(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Capture == nil {
		http.Error(w, "this program cannot capture", http.StatusUnprocessableEntity)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	out := &flushed{w: w, c: http.NewResponseController(w)}
	if err := s.cfg.Capture(ctx, r.URL.Query()["interface"], out); err != nil && !out.wrote {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	}
}

// flushed sends at once what is written to it.
type flushed struct {
	w     io.Writer
	c     *http.ResponseController
	wrote bool
}

func (f *flushed) Write(b []byte) (int, error) {
	f.wrote = true
	n, err := f.w.Write(b)
	if err == nil {
		err = f.c.Flush()
	}
	return n, err
}
