// Program msload measures a Map-Server and Map-Resolver: how many Map-Registers
// it acknowledges and how many Map-Requests it answers, and after what time.
//
//	go run ./internal/msload                      # our server in a process of its own, on loopback
//	go run ./internal/msload -server 192.0.2.1    # any server with the key; see -h
//
// The server needs a site with 10.0.0.0/8, more specifics accepted. With our
// own server the processor time that its process takes is told as well: on a
// machine that the load shares with the server, only answers per second of the
// server's own processor time say anything about the server.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xtrkit/xtrkit/internal/msload/load"
	"github.com/xtrkit/xtrkit/lisp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "msload:", err)
		os.Exit(1)
	}
}

// options are those of the command line.
type options struct {
	load    load.Config
	eids    string
	algs    string
	server  string
	key     string
	keyID   uint
	workers int
	serve   bool
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	var o options
	fs := flag.NewFlagSet("msload", flag.ContinueOnError)
	fs.StringVar(&o.eids, "eids", "1000,1000000", "numbers of registered EIDs, one xTR each")
	fs.StringVar(&o.algs, "algorithm", "sha1,sha256", "HMAC of the Map-Registers")
	fs.StringVar(&o.server, "server", "", "address, or address:port, of a server; default: our own")
	fs.StringVar(&o.key, "key", "msload", "secret of the site")
	fs.UintVar(&o.keyID, "key-id", 1, "Key ID")
	fs.IntVar(&o.workers, "workers", 1, "processors, and receiving sockets, of our own server")
	fs.IntVar(&o.load.Count, "count", 2_000_000, "messages in each measurement")
	fs.DurationVar(&o.load.Duration, "duration", 10*time.Second, "most time of each measurement")
	fs.IntVar(&o.load.Window, "window", 256, "most unanswered messages")
	fs.Float64Var(&o.load.Rate, "rate", 0, "messages a second; 0: as many as are answered")
	fs.IntVar(&o.load.Sockets, "sockets", 4, "sockets that send")
	fs.IntVar(&o.load.Check, "check", 64, "of how many answers one is checked in full")
	fs.BoolVar(&o.serve, "serve", false, "be the server: print its address, end with standard input")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.serve {
		return serve(ctx, &o, stdin, stdout)
	}
	tw := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(stdout, "%s %s/%s, %d processors; server with %d\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), o.workers)
	fmt.Fprintln(tw, "EIDs\tHMAC\tmessages\tanswered\tlost\twrong\tanswers/s\tper s of server's CPU\tCPU each\tp50\tp99\tp99.9\tserver memory")
	for n := range strings.SplitSeq(o.eids, ",") {
		eids, err := strconv.Atoi(n)
		if err != nil {
			return fmt.Errorf("-eids: %w", err)
		}
		for name := range strings.SplitSeq(o.algs, ",") {
			alg, ok := algorithms[name]
			if !ok {
				return fmt.Errorf("-algorithm: %q is none of sha1, sha256, hkdf", name)
			}
			if err := o.measure(ctx, tw, eids, name, alg); err != nil {
				return err
			}
		}
	}
	return tw.Flush()
}

var algorithms = map[string]lisp.Algorithm{
	"sha1": lisp.AlgorithmHMACSHA1, "sha256": lisp.AlgorithmHMACSHA256, "hkdf": lisp.AlgorithmHMACSHA256HKDF,
}

// measure prints a line for each kind of load on one server.
func (o *options) measure(ctx context.Context, tw *tabwriter.Writer, eids int, name string, alg lisp.Algorithm) error {
	cfg := o.load
	cfg.EIDs = eids
	cfg.Key = lisp.Key{ID: uint8(o.keyID), Algorithm: alg, Secret: []byte(o.key)}
	cfg.Nonce = lisp.Nonce(time.Now().Unix()) << 24
	var child *child
	if o.server == "" {
		var err error
		if child, err = startChild(ctx, o); err != nil {
			return err
		}
		defer child.stop()
		cfg.Server = child.addr
	} else {
		addr, err := netip.ParseAddrPort(o.server)
		if err != nil {
			a, err := netip.ParseAddr(o.server)
			if err != nil {
				return fmt.Errorf("-server: %w", err)
			}
			addr = netip.AddrPortFrom(a, lisp.ControlPort)
		}
		cfg.Server = addr
	}
	for _, kind := range []struct {
		name     string
		requests float64
	}{{"first registrations", 0}, {"registrations", 0}, {"requests", 1}, {"half of each", 0.5}} {
		c := cfg
		c.Requests = kind.requests
		if kind.name == "first registrations" {
			c.Count, c.Duration, c.Rate = eids, 0, 0
		}
		before := child.cpu()
		r, err := load.Run(ctx, c)
		if err != nil {
			return err
		}
		cpu := child.cpu() - before
		cfg.Nonce = r.LastNonce + 1
		fmt.Fprintf(tw, "%d\t%s\t%s\t%d\t%d\t%d\t%.0f\t", eids, name, kind.name, r.Answered, r.Lost, r.Wrong, r.Rate())
		if cpu > 0 && r.Answered > 0 {
			fmt.Fprintf(tw, "%.0f\t%v\t", float64(r.Answered)/cpu.Seconds(), (cpu / time.Duration(r.Answered)).Round(10*time.Nanosecond))
		} else {
			fmt.Fprint(tw, "-\t-\t")
		}
		q := func(p float64) time.Duration { return r.Latency.Quantile(p).Round(time.Microsecond) }
		fmt.Fprintf(tw, "%v\t%v\t%v\t%s\n", q(0.5), q(0.99), q(0.999), child.memory())
	}
	return nil
}
