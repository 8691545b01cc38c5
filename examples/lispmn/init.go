package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

const initSynopsis = `Usage: lispmn init [options]

Writes a configuration file with comments. What no option tells is asked for, in
five questions at most.

Options:
`

// initialise is "lispmn init". It returns the exit code.
func initialise(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("lispmn init", flag.ContinueOnError)
	file := flags.String("o", "/etc/lispd.conf", "write to `FILE`; - is standard output")
	force := flags.Bool("force", false, "replace a file that is there")
	eids := flags.String("eid", "", "`EID[,EID]` of the node, with a prefix length those of its site")
	server := flags.String("map-server", "", "`ADDR` of the Map-Server")
	key := flags.String("key", "", "`KEY` shared with the Map-Server; better asked for, as others see command lines")
	resolvers := flags.String("map-resolver", "", "`ADDR[,ADDR]` of Map-Resolvers")
	interfaces := flags.String("interface", "", "`NAME[,NAME]` of the interfaces to be reached by; wlan* is possible")
	switch err := cmdline.Parse(flags, initSynopsis, args, stdout, stderr); {
	case errors.Is(err, flag.ErrHelp):
		return daemon.ExitOK
	case err != nil:
		return daemon.ExitUsage
	case flags.NArg() > 0:
		cmdline.Mistake(stderr, flags.Name(), fmt.Errorf("unexpected argument %q", flags.Arg(0)))
		return daemon.ExitUsage
	}
	in := bufio.NewReader(stdin)
	var answers conf.Answers
	for _, q := range []struct {
		given *string
		ask   string
		def   func() string
		take  func(string) error
	}{
		{eids, "EIDs of this node (one for each of IPv4 and IPv6, or prefixes for a router)", nil, func(s string) (err error) {
			if answers.EIDs, err = conf.ParseEIDs(s); err != nil {
				return err
			}
			return check(ctx, answers)
		}},
		{server, "Address of the Map-Server", nil, func(s string) error {
			answers.MapServer = s
			return check(ctx, answers)
		}},
		{key, "Key shared with the Map-Server", nil, func(s string) error {
			if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
				return errors.New("the key is not text, as a file has to be")
			}
			answers.Key = conf.Secret(s)
			return nil
		}},
		{resolvers, "Addresses of Map-Resolvers", func() string { return answers.MapServer }, func(s string) error {
			answers.MapResolvers = conf.Words(s)
			return check(ctx, answers)
		}},
		{interfaces, "Interfaces to be reached by", uplinks, func(s string) error {
			answers.Interfaces = conf.Words(s)
			return check(ctx, answers)
		}},
	} {
		if *q.given != "" {
			if err := q.take(*q.given); err != nil {
				cmdline.Mistake(stderr, flags.Name(), err)
				return daemon.ExitUsage
			}
			continue
		}
		for {
			text, err := ask(in, stderr, q.ask, q.def)
			if err != nil {
				return daemon.Failed(stderr, "lispmn init", err)
			}
			err = errNoAnswer
			if text != "" {
				err = q.take(text)
			}
			if err == nil {
				break
			}
			fmt.Fprintf(stderr, "%v\n", err)
		}
	}
	text := answers.File()
	if *file == "-" {
		fmt.Fprint(stdout, text)
		return daemon.ExitOK
	}
	if err := create(*file, text, *force); err != nil {
		return daemon.Failed(stderr, "lispmn init", err)
	}
	fmt.Fprintf(stdout, "%s is written; start the node with: lispmn -f %s\n", *file, *file)
	return daemon.ExitOK
}

var errNoAnswer = errors.New("this needs an answer")

// check says what the program that reads the file would not like about the answers so
// far. In place of what is still to come stands something that it likes.
func check(ctx context.Context, a conf.Answers) error {
	a.MapServer = cmp.Or(a.MapServer, "192.0.0.8")
	a.Key = cmp.Or(a.Key, "key")
	if len(a.MapResolvers) == 0 {
		a.MapResolvers = []string{"192.0.0.8"}
	}
	if len(a.Interfaces) == 0 {
		a.Interfaces = []string{"eth0"}
	}
	_, err := conf.ParseNode(ctx, "", a.File(), conf.Options{})
	bad, ok := errors.AsType[*conf.Error](err)
	if !ok || bad.Passing { // names may well be unknown where the file is written
		return nil
	}
	return errors.New(bad.Problems[0].Text)
}

// ask asks one question. An empty answer is the default, if there is one.
func ask(in *bufio.Reader, out io.Writer, question string, def func() string) (string, error) {
	d := ""
	if def != nil {
		d = def()
		question += " [" + d + "]"
	}
	fmt.Fprintf(out, "%s: ", question)
	line, err := in.ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		line = d
	}
	if line == "" && err != nil {
		return "", errors.New("no answer (give it as an option, see lispmn init -help)")
	}
	return line, nil
}

// uplinks guesses the interfaces that lead to the Internet.
func uplinks() string {
	ifs, err := net.Interfaces()
	if err != nil {
		return ""
	}
	var names []string
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, a := range addrs {
			if p, ok := a.(*net.IPNet); ok && p.IP.IsGlobalUnicast() {
				names = append(names, i.Name)
				break
			}
		}
	}
	return strings.Join(names, ",")
}

// create writes a file that nobody else can read: it holds a key.
func create(path, text string, force bool) error {
	mode := os.O_EXCL
	if force {
		mode = os.O_TRUNC
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|mode, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already (replace it with -force, or write elsewhere with -o)", path)
	}
	if err != nil {
		return err
	}
	err = f.Chmod(0o600) // what is replaced may have been open to others
	if err == nil {
		_, err = f.WriteString(text)
	}
	return errors.Join(err, f.Close())
}
