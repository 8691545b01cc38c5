package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

func TestIdentity(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "node.json")
	first, err := loadIdentity(path)
	require.NoError(t, err)
	assert.NotEqual(t, lisp.XTRID{}, first.XTRID)
	other, err := loadIdentity(path)
	require.NoError(t, err)
	assert.NotEqual(t, first.XTRID, other.XTRID, "nothing is kept yet")

	first.Nonce = 77
	require.NoError(t, first.save(path))
	first.Nonce = 78
	require.NoError(t, first.save(path))
	again, err := loadIdentity(path)
	require.NoError(t, err)
	assert.Equal(t, first, again)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, left, 1, "no temporary file")

	for _, bad := range []string{"{", "{}", `{"xtrID":"x"}`} {
		require.NoError(t, os.WriteFile(path, []byte(bad), 0o600))
		_, err = loadIdentity(path)
		require.ErrorContains(t, err, "remove it to start as a new node")
	}
	require.Error(t, first.save(filepath.Join(path, "below-a-file")))
}
