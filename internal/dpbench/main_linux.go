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
	"runtime"
	"slices"
	"strings"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

func main() {
	if done, err := serveChild(os.Stdin, os.Stdout); done {
		exit(err)
	}
	if err := netlab.Enter(); err != nil {
		exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "dpbench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are those of the command line.
type options struct {
	rounds     int
	seconds    float64
	pings      int
	json       bool
	stats      bool
	awake      bool
	nic        bool
	cpuProfile string
	contenders []string
	measures   []string
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("dpbench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.rounds, "rounds", 5, "how many times each contender has its turn")
	fs.Float64Var(&o.seconds, "seconds", 2, "of each TCP measurement; each step of a search takes a quarter")
	fs.IntVar(&o.pings, "pings", 500, "echoes in each measurement of the round trip")
	fs.BoolVar(&o.json, "json", false, "print all values as JSON")
	fs.BoolVar(&o.stats, "stats", false, "print the counters of our processes when they end")
	fs.BoolVar(&o.awake, "awake", false, "let idle processors poll instead of sleep (/dev/cpu_dma_latency)")
	fs.BoolVar(&o.nic, "nic", false, "let the wires be like a plain network card: no segmentation of what is in a tunnel, but GRO")
	fs.StringVar(&o.cpuProfile, "cpuprofile", "", "write CPU profiles of our processes to FILE.CONTENDER.HOST")
	contenders := fs.String("contenders", strings.Join(contenderNames(), ","), "who takes part")
	measures := fs.String("measures", strings.Join(measureNames(), ","), "what is measured")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 || o.rounds < 1 || o.seconds <= 0 || o.pings < 1 {
		return nil, fmt.Errorf("wrong arguments %q", args)
	}
	var err error
	if o.contenders, err = choose("contenders", *contenders, contenderNames()); err != nil {
		return nil, err
	}
	o.measures, err = choose("measures", *measures, measureNames())
	return o, err
}

// choose returns those of all that are in a list with commas.
func choose(what, list string, all []string) ([]string, error) {
	want := strings.Split(list, ",")
	for _, w := range want {
		if !slices.Contains(all, w) {
			return nil, fmt.Errorf("-%s: %q is none of %s", what, w, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !slices.Contains(want, s) }), nil
}

func run(ctx context.Context, args []string, stdout, progress io.Writer) error {
	o, err := parse(args, progress)
	if err != nil {
		return err
	}
	if o.awake {
		wake, err := keepAwake()
		if err != nil {
			return err
		}
		defer func() { _ = wake.Close() }()
	}
	lab := netlab.New(ctx)
	defer func() { _ = lab.Close() }()
	r := newReport(o)
	var all []*contender
	for _, name := range o.contenders {
		c, err := newContender(ctx, lab, name, o)
		if skip := lab.Err(); skip != nil {
			return skip
		}
		if err != nil {
			if name != kernelName && !errors.Is(err, ebpf.ErrUnsupported) {
				return fmt.Errorf("%s: %w", name, err)
			}
			r.Skipped = append(r.Skipped, fmt.Sprintf("%s: %v", name, err))
			fmt.Fprintf(progress, "%s is left out: %v\n", name, err)
			continue
		}
		defer c.stop()
		all = append(all, c)
	}
	r.Load = loadAverage()
	for round := range o.rounds {
		// Every other round goes backwards: who comes after whom is no advantage.
		turn := slices.Clone(all)
		if round%2 == 1 {
			slices.Reverse(turn)
		}
		for _, m := range measures {
			if !slices.Contains(o.measures, m.name) {
				continue
			}
			for _, c := range turn {
				if err := ctx.Err(); err != nil {
					return err
				}
				values, err := m.run(c, o)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", c.name, m.name, err)
				}
				fmt.Fprintf(progress, "round %d/%d %-12s %-8s %s\n", round+1, o.rounds, c.name, m.name, m.show(values))
				r.add(c.name, m, values)
			}
		}
	}
	for _, c := range all {
		c.stop()
	}
	if o.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	wires := "veth"
	if o.nic {
		wires = "veth like a network card"
	}
	fmt.Fprintf(stdout, "%s %s/%s, %d processors, load %s, %d rounds of %s, %s\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), r.Load, o.rounds, o.duration(), wires)
	return r.print(stdout)
}

// keepAwake keeps the processors from sleeping until the file is closed: a wake-up
// then takes no interrupt, which in a virtual machine is the hypervisor's to bring.
func keepAwake() (*os.File, error) {
	f, err := os.OpenFile("/dev/cpu_dma_latency", os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("keep the processors awake: %w", err)
	}
	if _, err := f.Write(make([]byte, 4)); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("keep the processors awake: %w", err)
	}
	return f, nil
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(b), " ")
	return load
}
