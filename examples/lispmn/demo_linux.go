package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

const demoSynopsis = `Usage: lispmn demo [-multihome | -nat] [-json] [-keep] [-capture DIR]

Builds a network of its own out of namespaces, with a Map-Server and two mobile
nodes, and shows and checks how they find each other and talk; or, with
-multihome, how their conversation goes on while uplinks fail and change; or,
with -nat, how they get through NATs by way of RTRs. It needs root, or a system
that allows user namespaces; it touches nothing outside.
`

// exitInterrupted is what shells make of a program ended by SIGINT.
const exitInterrupted = 130

// demoLimit bounds the whole demo; it takes about ten seconds on a common machine.
const demoLimit = 90 * time.Second

// demoOptions are what the command line asks for.
type demoOptions struct {
	json, keep bool
	multihome  bool
	nat        bool
	pxtr       bool
	capture    string // directory; empty: no capture
	relayed    string // whose links are relayed, so that tests can delay them
}

// demo is the command lispmn demo. It returns the exit code.
func demo(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var opt demoOptions
	fs := flag.NewFlagSet("lispmn demo", flag.ContinueOnError)
	fs.BoolVar(&opt.json, "json", false, "print one JSON object at the end instead of text")
	fs.BoolVar(&opt.multihome, "multihome", false, "show handovers between several uplinks, with connections that go on")
	fs.BoolVar(&opt.nat, "nat", false, "show nodes behind NATs, with connections that go on while a NAT forgets, an RTR dies and a node moves")
	fs.BoolVar(&opt.pxtr, "pxtr", false, "show a node and a host without LISP talk, by a Proxy-ITR and a Proxy-ETR")
	fs.BoolVar(&opt.keep, "keep", false, "leave the network running at the end, and print how to enter each host")
	fs.StringVar(&opt.capture, "capture", "", "write what each host sees to `DIR`/HOST.pcapng, for Wireshark")
	switch err := cmdline.Parse(fs, demoSynopsis+"\nOptions:\n", args, stdout, stderr); {
	case errors.Is(err, flag.ErrHelp):
		return daemon.ExitOK
	case err != nil:
		return daemon.ExitUsage
	case fs.NArg() > 0:
		cmdline.Mistake(stderr, fs.Name(), fmt.Errorf("unexpected argument %q", fs.Arg(0)))
		return daemon.ExitUsage
	}
	// From here on in namespaces of our own: Enter starts this program again.
	if err := netlab.Enter(); err != nil {
		return demoImpossible(stdout, stderr, opt, err)
	}
	if err := netlab.Probe(); err != nil {
		return demoImpossible(stdout, stderr, opt, err)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return runDemo(ctx, opt, stdout, stderr)
}

// demoImpossible says which feature of the system is missing.
func demoImpossible(stdout, stderr io.Writer, opt demoOptions, err error) int {
	if opt.json {
		printJSON(stdout, report{Error: err.Error()})
	}
	fmt.Fprintln(stderr, "lispmn demo: this system cannot run it:", err)
	return daemon.ExitFailure
}

// runDemo builds the lab, runs the steps and reports. It must be called in
// namespaces of our own.
func runDemo(ctx context.Context, opt demoOptions, stdout, stderr io.Writer) (code int) {
	live := stdout
	if opt.json {
		live = io.Discard
	}
	d, err := newDemoLab(ctx, opt, live)
	if err != nil {
		return demoImpossible(stdout, stderr, opt, err)
	}
	defer func() {
		if err := d.close(); err != nil {
			fmt.Fprintln(stderr, "lispmn demo:", err)
			code = daemon.ExitFailure
		}
	}()
	steps := demoSteps
	switch {
	case opt.multihome:
		steps = multihomeSteps
	case opt.nat:
		steps = natSteps
	case opt.pxtr:
		steps = pxtrSteps
	}
	rep := d.run(ctx, steps)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "lispmn demo: interrupted")
		return exitInterrupted
	}
	if opt.json {
		printJSON(stdout, rep)
	} else {
		rep.print(stdout)
	}
	if opt.keep {
		d.waitKept(ctx, stderr)
	}
	if !rep.OK {
		return daemon.ExitFailure
	}
	return daemon.ExitOK
}

// run does one step after the other, up to the first that fails.
func (d *demoLab) run(ctx context.Context, steps []demoStep) report {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	rep := report{OK: true, Version: daemon.Version()}
	for i, s := range steps {
		d.log.step(i+1, s.name)
		start := time.Now()
		seen, err := s.do(ctx, d)
		r := stepReport{Name: s.name, OK: err == nil, Seen: seen, Seconds: time.Since(start).Seconds()}
		if err != nil {
			r.Error = err.Error()
			r.LookAt = append(slices.Clone(s.where), d.logs()...)
			rep.OK = false
		}
		d.log.result(r)
		rep.Steps = append(rep.Steps, r)
		if err != nil {
			break
		}
	}
	d.fill(&rep)
	return rep
}

// waitKept tells how to look around, and waits for the end.
func (d *demoLab) waitKept(ctx context.Context, w io.Writer) {
	fmt.Fprint(w, "\nThe network stays until you press Ctrl-C. To enter a host:\n")
	for _, h := range d.lab.Hosts() {
		fmt.Fprintf(w, "  %-9s %s\n", h.Name(), h.Enter())
	}
	var running []*child
	for _, name := range d.names() {
		if c := d.children[name]; !c.ended() {
			running = append(running, c)
		}
	}
	fmt.Fprint(w, "To ask a program what it knows, or to follow what happens (/events), from anywhere on this machine:\n")
	for _, c := range running {
		fmt.Fprintf(w, "  %-9s lispconf -s %s show\n", c.name, c.socket())
	}
	fmt.Fprint(w, "To kill a program and start it again:\n")
	for _, c := range running {
		fmt.Fprintf(w, "  %-9s kill -9 %d; %s %s\n", c.name, c.cmd.Process.Pid, d.hosts[c.name].Enter(), c.commandLine())
	}
	fmt.Fprintf(w, "Configurations and logs: %s\n", d.dir)
	<-ctx.Done()
}

func printJSON(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}

// captureFile is where a host's packets go.
func (o demoOptions) captureFile(host string) string {
	return filepath.Join(o.capture, host+".pcapng")
}
