// Package cmdline reads the command lines of all programs here in one way: what
// was asked for goes to the standard output, and a mistake is told in one line, so that
// it need not be looked for above pages of help.
package cmdline

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// Parse has flags read args. -help prints usage, which stands before the options, and
// the options to stdout, and returns flag.ErrHelp; a mistake is told on stderr, and
// returned.
func Parse(flags *flag.FlagSet, usage string, args []string, stdout, stderr io.Writer) error {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
	case err != nil:
		Mistake(stderr, flags.Name(), err)
	}
	return err
}

// Mistake tells what is wrong with the command line of a program.
func Mistake(stderr io.Writer, name string, err error) {
	fmt.Fprintf(stderr, "%s: %v (see %s -help)\n", name, err, name)
}
