package node

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestKeeper: who gives something to write does not wait, the last is written
// last, and the end waits for it.
func TestKeeper(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan lisp.Nonce), make(chan struct{})
	var written []lisp.Nonce
	var failed []error
	full := errors.New("disk full")
	k := newKeeper(func(id identity) error {
		began <- id.Nonce
		<-goOn
		written = append(written, id.Nonce)
		if id.Nonce == 1 {
			return full
		}
		return nil
	}, func(err error) { failed = append(failed, err) })
	k.keep(identity{Nonce: 1})
	assert.Equal(t, lisp.Nonce(1), <-began)
	for n := range lisp.Nonce(100) {
		k.keep(identity{Nonce: 2 + n}) // while the disk is slow
	}
	goOn <- struct{}{}
	assert.Equal(t, lisp.Nonce(101), <-began, "what is out of date is not written")
	k.keep(identity{Nonce: 200})
	closed := make(chan struct{})
	go func() { k.close(); close(closed) }()
	goOn <- struct{}{}
	assert.Equal(t, lisp.Nonce(200), <-began)
	select {
	case <-closed:
		assert.Fail(t, "ended before all is written")
	default:
	}
	goOn <- struct{}{}
	<-closed
	assert.Equal(t, []lisp.Nonce{1, 101, 200}, written)
	assert.Equal(t, []error{full}, failed)
	k.close() // again
}
