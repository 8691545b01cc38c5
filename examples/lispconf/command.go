package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// command is a command line under way.
type command struct {
	options
	client *statusd.Client
	out    io.Writer
}

// maxIID is the highest Instance ID of EIDs (RFC 8060 §4.1); control messages have the one above.
const maxIID = 1<<24 - 2

// usage says what is wrong with the command line.
func usage(format string, args ...any) error {
	return fmt.Errorf(format+" (%w)", append(args, errUsage)...)
}

func (c *command) run(ctx context.Context) error {
	if len(c.words) == 0 {
		return usage("a command is missing")
	}
	verb, args := c.words[0], c.words[1:]
	all := map[string]struct {
		min, max int // arguments
		do       func(context.Context, []string) error
	}{
		"show":    {0, 1, c.show},
		"list":    {1, 1, c.list},
		"add":     {2, 99, c.add},
		"del":     {2, 2, c.del},
		"flush":   {0, 0, c.flush},
		"probe":   {1, 1, c.probe},
		"lookup":  {1, 1, c.lookup},
		"trace":   {1, 1, c.trace},
		"watch":   {0, 0, c.watch},
		"capture": {1, 1, c.capture},
		"reload":  {0, 0, c.reload},
	}
	f, ok := all[verb]
	near := conf.Suggest(verb, slices.Collect(maps.Keys(all)))
	switch {
	case !ok && near != "":
		return usage("there is no command %q; did you mean %q?", verb, near)
	case !ok:
		return usage("there is no command %q", verb)
	case c.iid > maxIID:
		return usage("-iid: %d is more than an instance can be, %d", c.iid, maxIID)
	case c.mark > math.MaxUint32:
		return usage("-mark: a mark has 32 bits")
	case len(args) < f.min:
		return usage("%s: an argument is missing", verb)
	case len(args) > f.max:
		return usage("%s: unexpected argument %q", verb, args[f.max])
	}
	return f.do(ctx, args)
}

// done prints a result: as JSON, or as text.
func (c *command) done(v any, text func(io.Writer)) error {
	if c.json {
		return printJSON(c.out, v)
	}
	text(c.out)
	return nil
}

func (c *command) list(ctx context.Context, args []string) error {
	st, err := c.client.Status(ctx)
	if err != nil {
		return err
	}
	var found []string
	switch args[0] {
	case "eids":
		found = eids(&st, c.filter.Prefix)
	case "rlocs":
		found = rlocs(&st, c.filter.Prefix)
	default:
		return usage("list: eids or rlocs, not %q", args[0])
	}
	return c.done(found, func(w io.Writer) {
		for _, f := range found {
			fmt.Fprintln(w, f)
		}
	})
}

// change reads the arguments that add and del share.
func (c *command) change(args []string) (statusd.Change, error) {
	p, err := parsePrefix(args[1])
	if err != nil {
		return statusd.Change{}, usage("%v", err)
	}
	return statusd.Change{Table: args[0], IID: uint32(c.iid), Prefix: p}, nil
}

func (c *command) add(ctx context.Context, args []string) error {
	ch, err := c.change(args)
	if err != nil {
		return err
	}
	for _, a := range args[2:] {
		r, err := parseRLOC(a)
		if err != nil {
			return usage("%v", err)
		}
		ch.RLOCs = append(ch.RLOCs, r)
	}
	return c.nothing(ctx, statusd.ActionAdd, ch)
}

func (c *command) del(ctx context.Context, args []string) error {
	ch, err := c.change(args)
	if err != nil {
		return err
	}
	return c.nothing(ctx, statusd.ActionDel, ch)
}

// nothing has something done that has no result.
func (c *command) nothing(ctx context.Context, action string, in any) error {
	var none statusd.Nothing
	if err := c.client.Do(ctx, action, in, &none); err != nil {
		return err
	}
	return c.done(none, func(io.Writer) {})
}

// parseRLOC reads ADDR, ADDR,PRIORITY or ADDR,PRIORITY,WEIGHT.
func parseRLOC(s string) (statusd.RLOC, error) {
	parts := strings.Split(s, ",")
	r := statusd.RLOC{Priority: 1, Weight: 100}
	a, err := netip.ParseAddr(parts[0])
	r.Addr = a
	for i, to := range []*uint8{&r.Priority, &r.Weight} {
		if err == nil && len(parts) > i+1 {
			var n uint64
			n, err = strconv.ParseUint(parts[i+1], 10, 8)
			*to = uint8(n)
		}
	}
	if err != nil || len(parts) > 3 {
		return r, fmt.Errorf("%q is not a locator such as 203.0.113.1 or 203.0.113.1,1,100", s)
	}
	return r, nil
}

func (c *command) flush(ctx context.Context, _ []string) error {
	var n statusd.Count
	if err := c.client.Do(ctx, statusd.ActionFlush, statusd.Selection{Within: c.filter.Prefix}, &n); err != nil {
		return err
	}
	return c.done(n, func(w io.Writer) { fmt.Fprintf(w, "%d entries removed\n", n.Count) })
}

func target(s string) (statusd.Target, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return statusd.Target{}, usage("%q is not an address", s)
	}
	return statusd.Target{Addr: a}, nil
}

func (c *command) probe(ctx context.Context, args []string) error {
	t, err := target(args[0])
	if err != nil {
		return err
	}
	var paths []statusd.Path
	if err := c.client.Do(ctx, statusd.ActionProbe, t, &paths); err != nil {
		return err
	}
	return c.done(paths, func(w io.Writer) { pathTable(w, paths) })
}

func (c *command) lookup(ctx context.Context, args []string) error {
	t, err := target(args[0])
	if err != nil {
		return err
	}
	var e statusd.Entry
	if err := c.client.Do(ctx, statusd.ActionLookup, t, &e); err != nil {
		return err
	}
	st, err := c.client.Status(ctx)
	if err != nil {
		return err
	}
	return c.done(e, func(w io.Writer) { entryTable(w, st.Time, []statusd.Entry{e}) })
}

// protocols are those that have a name here.
var protocols = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58}

func (c *command) trace(ctx context.Context, args []string) error {
	t, err := target(args[0])
	if err != nil {
		return err
	}
	proto, ok := protocols[c.proto]
	if !ok {
		n, err := strconv.ParseUint(c.proto, 10, 8)
		if err != nil {
			return usage("-proto: %q is neither tcp, udp, icmp, icmp6 nor a number", c.proto)
		}
		proto = uint8(n)
	}
	if c.sport > 65535 || c.dport > 65535 {
		return usage("a port has 16 bits")
	}
	var out statusd.Trace
	in := statusd.Flow{
		Dst: t.Addr, Src: c.from.Addr, Protocol: proto, SrcPort: uint16(c.sport), DstPort: uint16(c.dport), Mark: uint32(c.mark),
	}
	if err := c.client.Do(ctx, statusd.ActionTrace, in, &out); err != nil {
		return err
	}
	return c.done(out, func(w io.Writer) { traceText(w, &out) })
}

// watch prints events, from now on. If the program ends that is an error: somebody may
// wait for an event that will not come.
func (c *command) watch(ctx context.Context, _ []string) error {
	var last uint64
	if err := c.client.Past(ctx, func(e statusd.Event) { last = e.Seq }); err != nil {
		return err
	}
	err := c.client.Events(ctx, last, func(e statusd.Event) error {
		if c.kind != "" && e.Kind != c.kind {
			return nil
		}
		if c.json {
			return printJSON(c.out, e)
		}
		_, err := fmt.Fprintf(c.out, "%s  %-24s  %s\n", e.Time.Format("15:04:05.000"), e.Kind, e.Text)
		return err
	})
	if err == nil {
		err = fmt.Errorf("what ran at %s has ended", c.socket)
	}
	return err
}

func (c *command) capture(ctx context.Context, args []string) error {
	if args[0] == "-" {
		return c.client.Capture(ctx, slices.Clone(c.interfaces), c.out)
	}
	f := &lateFile{path: args[0]}
	return errors.Join(c.client.Capture(ctx, slices.Clone(c.interfaces), f), f.close())
}

// lateFile is a file that replaces the one that is there only when there is something to
// be written.
type lateFile struct {
	path string
	file *os.File // nil: nothing is written yet
}

func (l *lateFile) Write(b []byte) (_ int, err error) {
	if l.file == nil {
		if l.file, err = os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			l.file = nil
			return 0, err
		}
	}
	return l.file.Write(b)
}

func (l *lateFile) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

func (c *command) reload(ctx context.Context, _ []string) error {
	var r statusd.Reloaded
	if err := c.client.Do(ctx, statusd.ActionReload, statusd.Nothing{}, &r); err != nil {
		return err
	}
	return c.done(r, func(w io.Writer) { fmt.Fprint(w, r) })
}
