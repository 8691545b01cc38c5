package tutorial

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

var update = flag.Bool("update", false, "write what is printed into the tutorials, where they say something else")

// shownAs is what is to be shown below a command, in place of some lines.
type shownAs struct {
	lines int
	by    []string
}

func TestMain(m *testing.M) { netlab.Main(m) }

// setup gives the tutorials a machine of their own: hosts, sockets and state that one makes
// are not there for the next one, nor for anybody else.
const setup = `
mount -t tmpfs none /run && mkdir /run/netns
mkdir -p /var/lib && mount -t tmpfs none /var/lib
ip link set lo up
`

// programs builds the examples and returns the folder with them.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "../../examples/...").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// root is the top of the sources.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	require.NoError(t, err)
	return dir
}

// TestTutorials does what docs/tutorials says, line by line.
func TestTutorials(t *testing.T) {
	netlab.Require(t)
	files, err := filepath.Glob("../../docs/tutorials/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	bin, root := programs(t), root(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".md"), func(t *testing.T) {
			f, err := os.Open(file)
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			steps, err := Parse(f)
			require.NoError(t, err)
			if len(steps) == 0 {
				return // an index
			}
			// A copy of the tree, as a reader would have cloned it: go needs go.mod, and what
			// a tutorial writes must not stay.
			dir := t.TempDir()
			sh, err := Start(dir, bin, "XTRKIT="+root+"\n"+setup)
			require.NoError(t, err)
			defer func() { require.NoError(t, sh.Close()) }()
			shown := make(map[int]shownAs)
			for _, s := range steps {
				got, code, err := sh.Run(s.Command)
				require.NoError(t, err, "line %d: %s", s.Line, s.Command)
				require.Zero(t, code, "%s:%d: exit code of %s\n%s", file, s.Line, s.Command, strings.Join(got, "\n"))
				if s.Script || *update && Match(s.Want, got) {
					continue
				}
				if *update {
					shown[s.Line] = shownAs{len(s.Want), got}
				} else {
					require.True(t, Match(s.Want, got), "%s:%d: # %sis said to print\n%s\nand printed\n%s",
						file, s.Line, s.Command, strings.Join(s.Want, "\n"), strings.Join(got, "\n"))
				}
			}
			if *update {
				rewrite(t, file, shown)
			}
		})
	}
}

// rewrite replaces the lines behind those of the given numbers.
func rewrite(t *testing.T, file string, shown map[int]shownAs) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	lines := strings.Split(string(b), "\n")
	out := make([]string, 0, len(lines))
	for i := 0; i < len(lines); i++ {
		out = append(out, lines[i])
		if s, ok := shown[i+1]; ok {
			out = append(out, s.by...)
			i += s.lines
		}
	}
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(out, "\n")), 0o644))
}
