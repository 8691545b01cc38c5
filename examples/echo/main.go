// Command echo sends datagrams or a TCP stream to another host running it, and
// says what came back and when, as the programs that LISPmob shipped did:
//
//	echo udp-server
//	echo udp-client -c 100 198.51.100.7
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const synopsis = `Usage: echo tcp-server|udp-server [options]
       echo tcp-client|udp-client [options] HOST

A server sends back what it gets. A client sends messages to one, and says how many
came back, and after what time. IPv4 and IPv6.

Options:
`

const defaultPort = 5000

// options are the command line.
type options struct {
	role     string
	host     string
	listen   string
	from     string
	port     int
	count    int
	interval time.Duration
	wait     time.Duration
	size     int
	json     bool
	quiet    bool
	version  bool
}

// roles are what the program can be.
var roles = map[string]func(context.Context, options, io.Writer) (*figures, error){
	"udp-server": udpServer, "tcp-server": tcpServer, "udp-client": udpClient, "tcp-client": tcpClient,
}

func parse(args []string, stdout, stderr io.Writer) (o options, err error) {
	if len(args) > 0 && roles[args[0]] != nil {
		o.role, args = args[0], args[1:]
	}
	fs := flag.NewFlagSet("echo", flag.ContinueOnError)
	fs.IntVar(&o.port, "p", defaultPort, "`PORT` of the server")
	fs.StringVar(&o.listen, "l", "", "server: listen at `ADDR` only")
	fs.StringVar(&o.from, "from", "", "client: send from `ADDR`, an EID for example")
	fs.IntVar(&o.count, "c", 10, "client: send `N` messages, 0 until it is stopped")
	fs.DurationVar(&o.interval, "i", 100*time.Millisecond, "client: `TIME` between two messages")
	fs.DurationVar(&o.wait, "w", 2*time.Second, "client: wait `TIME` for what is missing at the end")
	fs.IntVar(&o.size, "size", 64, "client: `OCTETS` of a message, at least 16")
	fs.BoolVar(&o.quiet, "q", false, "client: only the figures at the end")
	fs.BoolVar(&o.json, "json", false, "client: print the figures as JSON, and nothing else")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := cmdline.Parse(fs, synopsis, args, stdout, stderr); err != nil || o.version {
		return o, err
	}
	client := o.role == "udp-client" || o.role == "tcp-client"
	if client {
		o.host = fs.Arg(0)
	}
	switch {
	case o.role == "" && fs.NArg() > 0:
		err = fmt.Errorf("%q is none of tcp-server, tcp-client, udp-server, udp-client", fs.Arg(0))
	case o.role == "":
		err = errors.New("say what to be: tcp-server, tcp-client, udp-server or udp-client")
	case client && fs.NArg() != 1:
		err = errors.New("exactly one host is needed")
	case !client && fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.size < headerLen || o.size > 60000:
		err = fmt.Errorf("-size is from %d to 60000", headerLen)
	case o.interval <= 0 || o.count < 0 || o.port < 1 || o.port > 65535:
		err = errors.New("-i, -c or -p is out of range")
	}
	if err != nil {
		cmdline.Mistake(stderr, "echo", err)
	}
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
		fmt.Fprintln(stdout, "echo", daemon.Version())
		return daemon.ExitOK
	}
	out := stdout
	if o.json || o.quiet {
		out = io.Discard
	}
	f, err := roles[o.role](ctx, o, out)
	if f != nil {
		if o.json {
			_ = json.NewEncoder(stdout).Encode(f)
		} else {
			fmt.Fprint(stdout, f)
		}
	}
	if err != nil {
		return daemon.Failed(stderr, "echo", err)
	}
	if f != nil && f.Received == 0 {
		return daemon.ExitFailure
	}
	return daemon.ExitOK
}

// dialer is one that sends from where the command line says.
func (o options) dialer(network string) (*net.Dialer, error) {
	d := &net.Dialer{Timeout: 10 * time.Second}
	if o.from == "" {
		return d, nil
	}
	local := net.JoinHostPort(o.from, "0")
	var err error
	if network == "tcp" {
		d.LocalAddr, err = net.ResolveTCPAddr(network, local)
	} else {
		d.LocalAddr, err = net.ResolveUDPAddr(network, local)
	}
	return d, err
}

func (o options) address() string {
	host := o.listen
	if o.host != "" {
		host = o.host
	}
	return net.JoinHostPort(host, strconv.Itoa(o.port))
}
