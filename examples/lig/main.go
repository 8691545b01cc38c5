// Command lig asks Map-Resolvers where an EID is, as an ITR would (RFC 6835):
//
//	lig -m 203.0.113.1 198.51.100.7
//	lig -all self
//
// What it sends and understands is that of the package control.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const synopsis = `Usage: lig [options] EID|self

Asks a Map-Resolver for the mapping of EID, an address or a host name, or of the
EIDs of the lispmn that runs here. The answer comes to an address of this host that
must be no EID.

Options:
`

// options are the command line.
type options struct {
	resolvers string
	file      string
	socket    string
	source    string
	iid       uint
	count     int
	retries   int
	all, json bool
	version   bool
	eid       string
}

func parse(args []string, stdout, stderr io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("lig", flag.ContinueOnError)
	fs.StringVar(&o.resolvers, "m", "", "ask the Map-Resolvers `ADDR[,ADDR]`, not those of the configuration")
	fs.StringVar(&o.file, "f", "/etc/lispd.conf", "find the Map-Resolvers in the configuration `FILE` of lispmn")
	fs.StringVar(&o.socket, "s", "/run/lispmn.sock", "`SOCKET` of the lispmn that knows our EIDs and locators")
	fs.StringVar(&o.source, "source", "", "have the answer come to `RLOC[,RLOC]`; without it to a locator of lispmn, or where the route to the Map-Resolver begins")
	fs.UintVar(&o.iid, "iid", 0, "`INSTANCE` of the EID")
	fs.IntVar(&o.count, "c", 1, "ask `N` times, 1 to 5")
	fs.IntVar(&o.retries, "r", 3, "repeat an unanswered Map-Request `N` times, 0 to 10")
	fs.BoolVar(&o.all, "all", false, "ask every Map-Resolver, not only the first")
	fs.BoolVar(&o.json, "json", false, "print JSON")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := cmdline.Parse(fs, synopsis, args, stdout, stderr); err != nil || o.version {
		return o, err
	}
	switch {
	case fs.NArg() != 1:
		err = errors.New("exactly one EID is needed")
	case o.count < 1 || o.count > 5:
		err = errors.New("-c is from 1 to 5")
	case o.retries < 0 || o.retries > 10:
		err = errors.New("-r is from 0 to 10")
	case o.iid > 1<<24-1:
		err = errors.New("-iid has 24 bits")
	}
	if err != nil {
		cmdline.Mistake(stderr, "lig", err)
	}
	o.eid = fs.Arg(0)
	return o, err
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return daemon.ExitOK
	case err != nil:
		return daemon.ExitUsage
	case o.version:
		fmt.Fprintln(stdout, "lig", daemon.Version())
		return daemon.ExitOK
	}
	answers, err := o.lig(ctx)
	if wrong, ok := errors.AsType[usageError](err); ok {
		cmdline.Mistake(stderr, "lig", wrong)
		return daemon.ExitUsage
	}
	if err != nil && len(answers) == 0 {
		return daemon.Failed(stderr, "lig", err)
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		_ = enc.Encode(answers)
	}
	code := daemon.ExitOK
	for i, a := range answers {
		if a.Error != "" {
			code = daemon.ExitFailure
		}
		if !o.json {
			if i > 0 {
				fmt.Fprintln(stdout)
			}
			a.print(stdout)
		}
	}
	if err != nil {
		return daemon.Failed(stderr, "lig", err)
	}
	return code
}

// usageError is an error of the command line.
type usageError struct{ error }

// lig asks all that is to be asked.
func (o *options) lig(ctx context.Context) ([]answer, error) {
	resolvers, err := o.findResolvers(ctx)
	if err != nil {
		return nil, err
	}
	status, errStatus := statusd.NewClient(o.socket).Status(ctx)
	var eids []netip.Addr
	if o.eid == "self" {
		if errStatus != nil {
			return nil, fmt.Errorf("whose EIDs self are is known by lispmn: %w", errStatus)
		}
		if status.Node == nil {
			return nil, fmt.Errorf("whose EIDs self are is known by lispmn, but %s is the socket of %s", o.socket, status.Program)
		}
		for _, p := range status.Node.EIDs {
			eids = append(eids, p.Addr())
		}
	} else if eids, err = addresses(ctx, o.eid); err != nil {
		return nil, err
	}
	var answers []answer
	for _, eid := range eids {
		if eid.IsUnspecified() || eid.IsMulticast() || eid.Zone() != "" {
			return nil, usageError{fmt.Errorf("%v is the address of no host", eid)}
		}
		for _, r := range resolvers {
			sources, err := o.sources(r, status.Node)
			if err != nil {
				return nil, err
			}
			for range o.count {
				conn, err := listen(r)
				if err != nil {
					return nil, err
				}
				answers = append(answers, ask(ctx, question{
					eid: eid, iid: uint32(o.iid), resolver: netip.AddrPortFrom(r, lisp.ControlPort), sources: sources, retries: o.retries,
				}, conn))
				if err := ctx.Err(); err != nil {
					return answers, err
				}
			}
		}
	}
	return answers, nil
}

// listen opens a socket of the family of an address.
func listen(r netip.Addr) (net.PacketConn, error) {
	if r.Is4() {
		return net.ListenPacket("udp4", "0.0.0.0:0")
	}
	return net.ListenPacket("udp6", "[::]:0")
}

func (o *options) findResolvers(ctx context.Context) (rs []netip.Addr, err error) {
	if o.resolvers != "" {
		for _, w := range conf.Words(o.resolvers) {
			as, err := addresses(ctx, w)
			if err != nil {
				return nil, err
			}
			rs = append(rs, as...)
		}
	} else {
		cfg, err := conf.LoadNode(ctx, o.file, conf.Options{})
		if err != nil {
			return nil, fmt.Errorf("no Map-Resolver: give one with -m: %w", err)
		}
		rs = cfg.MapResolvers
	}
	if len(rs) == 0 {
		return nil, errors.New("no Map-Resolver: give one with -m")
	}
	if !o.all {
		rs = rs[:1]
	}
	return rs, nil
}

// lookupTime is how long a name server may take.
const lookupTime = 5 * time.Second

// addresses reads an address or asks for those of a name.
func addresses(ctx context.Context, s string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	as, err := net.DefaultResolver.LookupNetIP(ctx, "ip", s)
	if err != nil {
		return nil, fmt.Errorf("%q is no address, and as a name: %w", s, err)
	}
	for i := range as {
		as[i] = as[i].Unmap()
	}
	return as, nil
}

// sources are our RLOCs for a Map-Resolver.
func (o *options) sources(r netip.Addr, node *statusd.Node) (out []netip.Addr, err error) {
	if o.source != "" {
		for _, w := range conf.Words(o.source) {
			a, err := netip.ParseAddr(w)
			if err != nil {
				return nil, usageError{fmt.Errorf("-source: %w", err)}
			}
			out = append(out, a)
		}
		return out, nil
	}
	if node != nil {
		for _, l := range node.Locals {
			if l.Up && l.Addr.Is4() == r.Is4() {
				out = append(out, l.Addr)
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	a, err := rlocTo(r)
	return []netip.Addr{a}, err
}

// print shows an answer as text.
func (a *answer) print(w io.Writer) {
	if a.Error != "" {
		fmt.Fprintf(w, "%v at %v: %s, %s sent\n", a.EID, a.Resolver, a.Error, plural(a.Sent, "Map-Request"))
		return
	}
	by := "for the site"
	if a.Authoritative {
		by = "the site itself"
	}
	fmt.Fprintf(w, "%v at %v: answer from %v (%s) in %s, %s sent\n", a.EID, a.Resolver, a.From, by, milli(a.RTT), plural(a.Sent, "Map-Request"))
	ttl := "left to us"
	if a.TTL >= 0 {
		ttl = strings.TrimSuffix(a.TTL.String(), "0s")
	}
	if a.Action != "" {
		fmt.Fprintf(w, "EID-prefix %v, ttl %s, negative: %s (%s)\n", a.Prefix, ttl, a.Action, a.Meaning)
		return
	}
	fmt.Fprintf(w, "EID-prefix %v, ttl %s\n", a.Prefix, ttl)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "   Locator\tState\tPri/Wgt")
	for _, l := range a.Locators {
		fmt.Fprintf(t, "   %v\t%s\t%d/%d\n", l.Addr, l.State, l.Priority, l.Weight)
	}
	_ = t.Flush() // an error of w comes again
}

func milli(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + " ms"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
