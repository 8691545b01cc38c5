// Command lispdump prints the LISP messages in a capture, or on an interface.
//
//	lispdump capture.pcapng
//	lispdump -key secret -v capture.pcap
//	lispdump -i eth0 -json
//
// It prints a line a control message: time, addresses, what it says and, with
// -key, whether its authentication data is right.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const synopsis = `Usage: lispdump [options] [FILE...]

Prints the LISP messages in pcap or pcapng files (- is the standard input), or on an
interface. Files may be compressed with gzip. Fragmented datagrams are not put together.

Options:
`

// options are the command line.
type options struct {
	iface   string
	tree    bool
	json    bool
	data    bool
	secrets secrets
	files   []string
}

// secrets are the -key options: a secret each, or @FILE with one a line.
type secrets [][]byte

func (s *secrets) String() string { return fmt.Sprintf("%d keys", len(*s)) }

// Set implements flag.Value.
func (s *secrets) Set(v string) error {
	name, isFile := strings.CutPrefix(v, "@")
	if !isFile {
		*s = append(*s, []byte(v))
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			*s = append(*s, []byte(line))
		}
	}
	return nil
}

func parseOptions(args []string, stdout, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("lispdump", flag.ContinueOnError)
	fs.StringVar(&o.iface, "i", "", "listen on this `interface` (Linux, as root)")
	fs.BoolVar(&o.tree, "v", false, "print all fields of each message")
	fs.BoolVar(&o.json, "json", false, "print a JSON object a line")
	fs.BoolVar(&o.data, "data", false, "print data packets too")
	fs.Var(&o.secrets, "key", "check authentication data with this `secret`, or the secrets in @FILE; may be repeated.\n"+
		"Key ID and algorithm are taken from the message")
	if err := cmdline.Parse(fs, synopsis, args, stdout, stderr); err != nil {
		return o, err
	}
	o.files = fs.Args()
	if (o.iface == "") == (len(o.files) == 0) {
		err := errors.New("give either files or an interface")
		cmdline.Mistake(stderr, fs.Name(), err)
		return o, err
	}
	return o, nil
}

// run is main without the process. It returns the exit code: 0, 1 if something
// could not be read, 2 for a wrong command line.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	p := &printer{options: o, out: stdout}
	if o.iface != "" {
		err = p.live(ctx, o.iface)
	}
	for _, name := range o.files {
		if e := p.file(ctx, name, stdin); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, e))
		}
	}
	err = errors.Join(err, p.links())
	_, _ = fmt.Fprintln(stderr, p.counts)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "lispdump:", err)
		return 1
	}
	return 0
}
