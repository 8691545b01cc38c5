package control_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestRunnerRefused: a Dataplane that refuses our locators is asked again each
// second, for hours, which the log tells of a few times and at the end.
func TestRunnerRefused(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		e, err := control.New(control.Config{})
		require.NoError(t, err)
		p := newPlane(e)
		p.refuse = 3600
		var log bytes.Buffer
		r := b.run(control.RunnerConfig{
			Conn: b.conn("x", rlocA), Engine: e, Dataplane: p, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		ls := []mapcache.Local{{Addr: rlocA, Up: true}}
		r.SetLocals(time.Now(), ls)
		look := func(f func()) {
			require.NoError(t, r.Do(t.Context(), func(time.Time) { f() }))
		}
		time.Sleep(3599*time.Second + time.Second/2)
		look(func() {
			assert.Empty(t, p.locals)
			assert.Equal(t, 12, strings.Count(log.String(), "will try again"), "powers of two up to 2048")
			assert.NotContains(t, log.String(), "takes the locators again")
		})
		time.Sleep(time.Second)
		look(func() {
			assert.Equal(t, [][]mapcache.Local{ls}, p.locals)
			assert.Contains(t, log.String(), `takes the locators again" component=runner tries=3600`)
		})
		r.SetLocals(time.Now(), ls)
		time.Sleep(time.Second)
		look(func() { assert.Equal(t, 13, strings.Count(log.String(), "level="), "told once") })
		require.NoError(t, r.Close())
	})
}
