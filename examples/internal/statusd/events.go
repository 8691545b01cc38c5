package statusd

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode"
)

// keptEvents is how many events are kept for those who come later.
const keptEvents = 4096

// log keeps the last events and wakes those who wait for more. It is safe for
// concurrent use. Readers keep their own position, so a slow one costs
// nothing; it misses what is no longer kept.
type log struct {
	mu     sync.Mutex
	ring   []kept
	next   uint64 // sequence number of the next event
	more   chan struct{}
	waited bool // somebody has more
}

// kept is an event, which is put into words when somebody reads it.
type kept struct {
	Event
	typed fmt.Stringer // nil: Event says all
}

// event is the whole event.
func (k *kept) event() Event {
	if k.typed == nil {
		return k.Event
	}
	e := Describe(k.Time, k.typed.String(), k.typed)
	e.Seq = k.Seq
	return e
}

func newLog() *log {
	return &log{next: 1, more: make(chan struct{})}
}

func (l *log) add(e kept) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Seq = l.next
	l.next++
	if len(l.ring) < keptEvents {
		l.ring = append(l.ring, e)
	} else {
		l.ring[(e.Seq-1)%keptEvents] = e
	}
	if l.waited {
		close(l.more)
		l.more, l.waited = make(chan struct{}), false
	}
}

// after returns the kept events with a sequence number above seq, and a
// channel that is closed when there are more.
func (l *log) after(seq uint64) ([]Event, <-chan struct{}) {
	found, more := l.keptAfter(seq)
	es := make([]Event, len(found)) // in words only here, where nobody waits for the lock
	for i := range found {
		es[i] = found[i].event()
	}
	return es, more
}

func (l *log) keptAfter(seq uint64) (found []kept, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := max(seq+1, l.next-uint64(len(l.ring))); s < l.next; s++ {
		found = append(found, l.ring[(s-1)%keptEvents])
	}
	l.waited = true
	return found, l.more
}

// Describe makes an Event of a typed one: its kind is the name of its type,
// its data the JSON of its exported fields.
func Describe(at time.Time, text string, typed any) Event {
	t := reflect.TypeOf(typed)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	e := Event{Time: at, Kind: kebab(t.Name()), Text: text}
	if b, err := json.Marshal(readable(typed)); err == nil && string(b) != "{}" {
		e.Data = b
	}
	return e
}

// readable returns the exported fields of a struct, with errors and named
// numbers as their text; what is not a struct it returns as it is.
func readable(typed any) any {
	v := reflect.Indirect(reflect.ValueOf(typed))
	if v.Kind() != reflect.Struct {
		return typed
	}
	fields := make(map[string]any)
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.IsExported() || f.Anonymous || f.Tag.Get("json") == "-" {
			continue
		}
		x := v.FieldByIndex(f.Index).Interface()
		switch y := x.(type) {
		case error:
			x = y.Error()
		case time.Duration:
		case fmt.Stringer:
			if k := reflect.TypeOf(x).Kind(); k >= reflect.Int && k <= reflect.Uint64 {
				x = y.String()
			}
		}
		fields[f.Name] = x
	}
	return fields
}

// kebab turns MapRequestSent into map-request-sent, and EIDMoved into eid-moved.
func kebab(s string) string {
	var b strings.Builder
	rs := []rune(s)
	for i, r := range rs {
		if unicode.IsUpper(r) && i > 0 && (unicode.IsLower(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1])) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
