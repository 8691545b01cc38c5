package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzParse reads arbitrary text as both kinds of file. A file that is
// accepted is complete and within its ranges; one that is refused says where
// and why.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.conf")
	require.NoError(f, err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(string(b))
	}
	f.Add(minimal)
	f.Add(`a { b = "\x41${C:-d}" /* */ e += { 'f', } }`)
	f.Fuzz(func(t *testing.T, src string) {
		n, err := ParseNode(t.Context(), "f", src, hermetic())
		if err != nil {
			checkError(t, err, src)
		} else {
			for _, m := range n.Mappings {
				assert.True(t, n.Mode != ModeMN || m.Prefix.IsSingleIP())
				assert.Equal(t, n.IID, m.IID)
				assert.NotEmpty(t, m.Locators)
				assert.Less(t, m.IID, uint32(1<<24-1))
				for _, l := range m.Locators {
					assert.True(t, (l.Interface == "") == l.Addr.IsValid())
					assert.Contains(t, []int{4, 6}, l.Family)
				}
			}
			assert.True(t, len(n.Mappings) > 0 || n.Proxy.Any() && len(n.Locators) > 0)
			for _, s := range n.MapServers {
				assert.True(t, s.Addr.IsValid() && !s.Addr.Is4In6())
				assert.NotEmpty(t, s.Key.Secret)
				assert.Contains(t, []int{1, 2, 3}, s.Key.Type)
			}
		}
		m, err := ParseMapServer(t.Context(), "f", src, hermetic())
		if err != nil {
			checkError(t, err, src)
		} else {
			for _, s := range m.Sites {
				assert.NotEmpty(t, s.Prefixes)
				for _, k := range s.Keys {
					assert.NotEmpty(t, k.Secret)
				}
			}
		}
	})
}

func checkError(t *testing.T, err error, src string) {
	var e *Error
	require.ErrorAs(t, err, &e)
	require.NotEmpty(t, e.Problems)
	for _, p := range e.Problems {
		assert.LessOrEqual(t, p.Line, 1+strings.Count(src, "\n"))
		assert.NotEmpty(t, p.Text)
	}
}
