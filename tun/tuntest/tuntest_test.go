package tuntest

import (
	"bytes"
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/tun"
)

func TestRead(t *testing.T) {
	t.Parallel()
	d := New(Config{BatchSize: 2})
	assert.Equal(t, []any{"lmn0", tun.DefaultMTU, 2}, []any{d.Name(), d.MTU(), d.BatchSize()})
	require.NoError(t, d.Send(t.Context(), []byte("one"), []byte("three"), []byte("five")))
	bufs, sizes := [][]byte{make([]byte, 20), make([]byte, 20), make([]byte, 20)}, make([]int, 3)
	n, err := d.Read(bufs, sizes, 4)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	assert.Equal(t, "one", string(bufs[0][4:4+sizes[0]]))
	assert.Equal(t, "three", string(bufs[1][4:4+sizes[1]]))
	n, err = d.Read(bufs, sizes, 4)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	assert.Equal(t, "five", string(bufs[0][4:4+sizes[0]]))

	require.NoError(t, d.Send(t.Context(), make([]byte, 17)))
	_, err = d.Read(bufs, sizes, 4)
	assert.Error(t, err, "does not fit")
}

func TestWrite(t *testing.T) {
	t.Parallel()
	d := New(Config{Queue: 1})
	b := append(make([]byte, tun.Headroom), "packet"...)
	n, err := d.Write([][]byte{b, bytes.Clone(b)}, tun.Headroom)
	require.NoError(t, err)
	assert.Equal(t, 2, n)
	assert.Equal(t, 1, d.Dropped())
	assert.NotContains(t, string(b), "packet", "callers must not rely on it after Write")
	p, err := d.Receive(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "packet", string(p))
	_, err = d.Write([][]byte{b}, tun.Headroom-1)
	assert.Error(t, err)
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{})
		errs := make(chan error)
		go func() {
			_, err := d.Read([][]byte{make([]byte, 10)}, make([]int, 1), 0)
			errs <- err
		}()
		go func() {
			_, err := d.Receive(t.Context())
			errs <- err
		}()
		synctest.Wait()
		require.NoError(t, d.Close())
		require.NoError(t, d.Close())
		assert.ErrorIs(t, <-errs, os.ErrClosed)
		assert.ErrorIs(t, <-errs, os.ErrClosed)
		_, err := d.Write(nil, tun.Headroom)
		assert.ErrorIs(t, err, os.ErrClosed)
		assert.ErrorIs(t, d.Send(t.Context(), nil), os.ErrClosed)
		_, err = d.Read(nil, nil, 0)
		assert.ErrorIs(t, err, os.ErrClosed)
	})
}

func TestReceiveAfterClose(t *testing.T) {
	t.Parallel()
	d := New(Config{})
	_, err := d.Write([][]byte{make([]byte, 20)}, 19)
	require.NoError(t, err)
	require.NoError(t, d.Close())
	p, err := d.Receive(t.Context())
	require.NoError(t, err)
	assert.Len(t, p, 1)
}

func TestContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Queue: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.Receive(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorIs(t, d.Send(ctx, nil, nil), context.DeadlineExceeded)
	})
}
