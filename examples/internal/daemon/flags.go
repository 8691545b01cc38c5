package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

// Flags are the options on the command line.
type Flags struct {
	File    string
	Version bool
	HTTP    string // where the status page is served; empty: nowhere
	Pprof   bool   // with Go's profiles
	Log     string // the form of the log, such as LogAuto
	// Settings take the place of what the file says.
	Settings []conf.Setting
}

// setting is a flag that overrides an option of the file.
type setting struct {
	option string
	many   bool // several values, with commas between
	to     *[]conf.Setting
}

func (s setting) String() string { return "" }

func (s setting) Set(text string) error {
	values := []string{text}
	if s.many {
		values = strings.Split(text, ",")
	}
	*s.to = append(*s.to, conf.Setting{Name: s.option, Values: values})
	return nil
}

// Command is a program's command line.
type Command struct {
	Name, File string // the name of the program, and where its file is if nobody says
	Synopsis   string
	Commands   []string // first words that the program knows
	// Node adds the options of LISPmob's lispd that a Map-Server or RTR has no use for.
	Node bool
}

// FlagSet makes the flags of the command, which set f.
func (c Command) FlagSet(f *Flags) *flag.FlagSet {
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	fs.StringVar(&f.File, "f", c.File, "read the configuration from `FILE`")
	fs.BoolVar(&f.Version, "version", false, "print the version and exit")
	fs.StringVar(&f.HTTP, "http", "", "serve a status page, /metrics and /healthz at `ADDRESS`, such as 127.0.0.1:8080")
	fs.BoolVar(&f.Pprof, "pprof", false, "serve Go's profiles there too")
	f.Log = LogAuto
	fs.Func("log", "`FORM` of the log: text, json, or auto, which is text on a terminal and JSON elsewhere (default \"auto\")", func(form string) error {
		if !slices.Contains([]string{LogAuto, LogText, LogJSON}, form) {
			return fmt.Errorf("it is %s, %s or %s", LogAuto, LogText, LogJSON)
		}
		f.Log = form
		return nil
	})
	fs.Bool("n", false, "stay in the foreground, as is always done: for command lines of lispd")
	for _, s := range []struct{ name, option, usage string }{
		{"d", "debug", "`LEVEL` of detail of the log, 0 to 3"},
		{"dataplane", "dataplane", "forward packets in the kernel (ebpf), in user space (user), or where it can be done best (`PLANE`, auto)"},
		{"a", "rloc-family", "use locators of one address family only, 4 or 6 (`AFI`)"},
		{"m", "map-resolver", "ask these Map-Resolvers, `ADDR[,ADDR]`"},
		{"s", conf.OverrideMapServer, "register with the Map-Server `ADDR`, with the key of the first one in the file"},
		{"e", conf.OverrideProxyETR, "send to the Proxy-ETR `ADDR` what is for no EID"},
		{"p", "control-port", "send control messages from UDP port `PORT`"},
		{"r", "map-request-retries", "repeat an unanswered Map-Request `N` times"},
	} {
		if c.Node || s.name == "d" || s.name == "dataplane" {
			fs.Var(setting{s.option, s.name == "m", &f.Settings}, s.name, s.usage)
		}
	}
	fs.BoolFunc("graceful", "let packets go on in the kernel when the program ends, until it is started again (for 3 minutes at most)", func(text string) error {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return err
		}
		f.Settings = append(f.Settings, conf.Setting{Name: "graceful", Values: []string{map[bool]string{true: "on", false: "off"}[on]}})
		return nil
	})
	return fs
}

// Parse reads the command line. done says that there is nothing left to do but
// to exit with code.
func (c Command) Parse(args []string, stdout, stderr io.Writer) (f Flags, code int, done bool) {
	return c.parse(args, 0, stdout, stderr)
}

func (c Command) parse(args []string, files int, stdout, stderr io.Writer) (f Flags, code int, done bool) {
	fs := c.FlagSet(&f)
	err := cmdline.Parse(fs, c.Synopsis+"\nOptions (they override the file):\n", args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return f, ExitOK, true
	case err != nil:
		return f, ExitUsage, true
	case fs.NArg() > files:
		cmdline.Mistake(stderr, c.Name, c.unexpected(fs.Arg(files)))
		return f, ExitUsage, true
	case fs.NArg() > 0:
		f.File = fs.Arg(0)
	}
	return f, ExitOK, false
}

// CheckArgs reads the arguments of "check", which are those of the program, but
// for the file, which may stand alone behind them.
func (c Command) CheckArgs(args []string, stdout, stderr io.Writer) (f Flags, code int, done bool) {
	return c.parse(args, 1, stdout, stderr)
}

// unexpected is a word too many, which may have been meant for a command.
func (c Command) unexpected(word string) error {
	if near := conf.Suggest(word, slices.Clone(c.Commands)); near != "" {
		return fmt.Errorf("unexpected argument %q; did you mean %q?", word, near)
	}
	return fmt.Errorf("unexpected argument %q", word)
}
