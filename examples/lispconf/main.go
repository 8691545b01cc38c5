// Command lispconf looks into a running lispmn or lispms, and changes it:
//
//	lispconf show map-cache -filter 198.51.100.0/24
//	lispconf trace 198.51.100.7
//	lispconf watch
//
// It talks HTTP and JSON to the program's unix socket, see the package
// examples/internal/statusd; -json prints what came from there.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const synopsis = `Usage: lispconf [options] COMMAND

  show [TABLE]                 map-cache, database, registrations, rlocs, interfaces,
                               nat, stats or sites; without a TABLE an overview
  list eids|rlocs              one by line, for scripts
  add map-cache PREFIX [RLOC[,PRIORITY[,WEIGHT]]...]
                               a static entry; without RLOC it is forwarded natively
  add database PREFIX          a further EID-Prefix of ours, or a part of one by itself,
                               with the locators of the one that holds it, else of the first
  del map-cache|database PREFIX
  flush                        remove what was learned from the map-cache
  probe RLOC                   send RLOC-probes, and wait for the answers
  lookup EID                   the mapping of an EID, asked for if need be
  trace EID                    what becomes of a packet to EID, and why
  watch                        what happens, as it happens
  capture FILE                 packets of the device and the uplinks as pcapng; - is
                               the standard output
  reload                       read the configuration again

What add and del do ends with the program or the next reload.

Options, before or behind the command:
`

// options are the command line.
type options struct {
	socket     string
	json       bool
	version    bool
	filter     prefixFlag
	iid        uint
	from       addrFlag
	proto      string
	sport      uint
	dport      uint
	mark       uint
	kind       string
	interfaces stringsFlag
	words      []string // the command
}

func flagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("lispconf", flag.ContinueOnError)
	fs.StringVar(&o.socket, "s", "", "`SOCKET` of the program; /run/lispmn.sock or /run/lispms.sock, whichever is there")
	fs.BoolVar(&o.json, "json", false, "print JSON")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	fs.Var(&o.filter, "filter", "show, list or flush: only what is within `PREFIX`")
	fs.UintVar(&o.iid, "iid", 0, "add, del: the `INSTANCE`")
	fs.Var(&o.from, "from", "trace: the packets come from `ADDR`, not from the node's EID")
	fs.StringVar(&o.proto, "proto", "udp", "trace: `PROTOCOL` of the packets, tcp, udp, icmp or a number")
	fs.UintVar(&o.sport, "sport", 0, "trace: their source `PORT`")
	fs.UintVar(&o.dport, "dport", 0, "trace: their destination `PORT`")
	fs.UintVar(&o.mark, "mark", 0, "trace: their firewall `MARK`")
	fs.StringVar(&o.kind, "kind", "", "watch: only events of a `KIND`, such as map-reply-received")
	fs.Var(&o.interfaces, "i", "capture: on this `INTERFACE`; may be repeated")
	return fs
}

// parse reads options wherever they stand.
func parse(args []string, stdout, stderr io.Writer) (o options, err error) {
	fs := flagSet(&o)
	for {
		if err := cmdline.Parse(fs, synopsis, args, stdout, stderr); err != nil {
			return o, err
		}
		if fs.NArg() == 0 {
			return o, nil
		}
		o.words, args = append(o.words, fs.Arg(0)), fs.Args()[1:]
	}
}

// errUsage is wrapped by errors about the command line.
var errUsage = errors.New("see lispconf -help")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return daemon.ExitOK
	case err != nil:
		return daemon.ExitUsage
	case o.version:
		fmt.Fprintln(stdout, "lispconf", daemon.Version())
		return daemon.ExitOK
	}
	if o.socket == "" {
		o.socket = "/run/lispmn.sock"
		if _, err := os.Stat(o.socket); err != nil {
			if _, err := os.Stat("/run/lispms.sock"); err == nil {
				o.socket = "/run/lispms.sock"
			}
		}
	}
	c := &command{options: o, client: statusd.NewClient(o.socket), out: stdout}
	err = c.run(ctx)
	switch {
	case err == nil, ctx.Err() != nil: // whoever ends it has seen enough
		return daemon.ExitOK
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, "lispconf:", err)
		return daemon.ExitUsage
	case errors.Is(err, os.ErrPermission):
		err = fmt.Errorf("%w (only root and the program's own user can talk to it)", err)
	}
	fmt.Fprintln(stderr, "lispconf:", err)
	return daemon.ExitFailure
}

// printJSON prints a value as JSON.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

type prefixFlag struct{ netip.Prefix }

func (p *prefixFlag) String() string { return "" }

func (p *prefixFlag) Set(s string) (err error) {
	p.Prefix, err = parsePrefix(s)
	return err
}

// parsePrefix takes an address alone for the prefix of a host.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is not a prefix such as 198.51.100.0/24", s)
	}
	return p.Masked(), nil
}

type addrFlag struct{ netip.Addr }

func (a *addrFlag) String() string { return "" }

func (a *addrFlag) Set(s string) (err error) {
	a.Addr, err = netip.ParseAddr(s)
	return err
}

type stringsFlag []string

func (l *stringsFlag) String() string { return "" }

func (l *stringsFlag) Set(s string) error {
	*l = append(*l, s)
	return nil
}
