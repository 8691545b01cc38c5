package tutorial

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCompletion lets bash complete command lines as it does when somebody presses Tab.
func TestCompletion(t *testing.T) {
	bin := programs(t)
	dir := t.TempDir()
	sh, err := Start(dir, bin, "source "+root(t)+"/examples/completion.bash; touch node.conf")
	require.NoError(t, err)
	defer func() { require.NoError(t, sh.Close()) }()
	for line, want := range map[string]string{
		"lispmn ch":          "check",
		"lispmn de":          "demo",
		"lispmn -vers":       "-version",
		"lispmn -f node":     "node.conf",
		"lispmn -http ":      "", // an address, which nobody knows
		"lispmn init -inter": "-interface",
		"lispmn check node":  "node.conf",
		"lispms -l":          "-log",
		"lispdump -j":        "-json",
		"lispdump node":      "node.conf",
	} {
		words := strings.Split(line, " ")
		n := len(words) - 1
		out, code, err := sh.Run("COMP_WORDS=(" + quote(words) + "); COMP_CWORD=" + string(rune('0'+n)) +
			"; COMPREPLY=(); _xtrkit " + words[0] + " " + quote(words[n:]) + " " + quote(words[n-1:n]) + "; echo ${COMPREPLY[@]}")
		require.NoError(t, err)
		assert.Zero(t, code, line)
		assert.Equal(t, want, strings.Join(out, "\n"), line)
	}
	// Each program that is complete has something to complete.
	for _, p := range []string{"lispmn", "lispms", "lispdump"} {
		out, err := exec.Command(bin+"/"+p, "-help").CombinedOutput()
		require.NoError(t, err)
		assert.Contains(t, string(out), "\n  -", p)
	}
}

func quote(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = "'" + w + "'"
	}
	return strings.Join(q, " ")
}
