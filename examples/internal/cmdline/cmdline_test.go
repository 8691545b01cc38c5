package cmdline_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/cmdline"
)

func TestParse(t *testing.T) {
	t.Parallel()
	parse := func(args ...string) (n int, out, says string, err error) {
		fs := flag.NewFlagSet("prog", flag.ContinueOnError)
		fs.IntVar(&n, "n", 1, "`N` times")
		var stdout, stderr strings.Builder
		err = cmdline.Parse(fs, "Usage: prog\n\n", args, &stdout, &stderr)
		return n, stdout.String(), stderr.String(), err
	}
	n, out, says, err := parse("-n", "3")
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Empty(t, out+says)

	_, out, says, err = parse("-help")
	require.ErrorIs(t, err, flag.ErrHelp)
	assert.Equal(t, "Usage: prog\n\n  -n N\n    \tN times (default 1)\n", out, "it was asked for, and can be paged")
	assert.Empty(t, says)

	for arg, want := range map[string]string{
		"-x":   "prog: flag provided but not defined: -x (see prog -help)\n",
		"-n=a": "prog: invalid value \"a\" for flag -n: parse error (see prog -help)\n",
		"-n":   "prog: flag needs an argument: -n (see prog -help)\n",
	} {
		_, out, says, err = parse(arg)
		require.Error(t, err)
		assert.Empty(t, out)
		assert.Equal(t, want, says)
	}
}
