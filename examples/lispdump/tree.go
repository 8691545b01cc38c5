package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/xtrkit/xtrkit/lisp"
)

// writeTree prints all fields of a message, indented.
func writeTree(w io.Writer, m lisp.Message) error {
	t := tree{}
	t.line(1, m.Type().String(), "")
	t.fields(2, reflect.ValueOf(m).Elem())
	_, err := io.WriteString(w, t.String())
	return err
}

type tree struct{ strings.Builder }

func (t *tree) line(depth int, name, value string) {
	if value != "" {
		value = " " + value
	}
	_, _ = fmt.Fprintf(t, "%s%s:%s\n", strings.Repeat("  ", depth), name, value)
}

func (t *tree) fields(depth int, v reflect.Value) {
	for i := range v.NumField() {
		t.value(depth, v.Type().Field(i).Name, v.Field(i))
	}
}

func (t *tree) value(depth int, name string, v reflect.Value) {
	if a, ok := reflect.TypeAssert[lisp.Address](v); ok {
		t.address(depth, name, a)
		return
	}
	if s, ok := reflect.TypeAssert[fmt.Stringer](v); ok && v.Kind() != reflect.Pointer {
		t.line(depth, name, s.String())
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			t.line(depth, name, "")
			t.fields(depth+1, v.Elem())
		}
	case reflect.Struct:
		t.line(depth, name, "")
		t.fields(depth+1, v)
	case reflect.Slice:
		if b, ok := reflect.TypeAssert[[]byte](v); ok {
			if len(b) > 0 {
				t.line(depth, name, fmt.Sprintf("%x", b))
			}
			return
		}
		for i := range v.Len() {
			t.value(depth, fmt.Sprintf("%s[%d]", name, i), v.Index(i))
		}
	default:
		t.line(depth, name, fmt.Sprint(v.Interface()))
	}
}

// address prints an address and, if it is an LCAF, what that is made of.
func (t *tree) address(depth int, name string, a lisp.Address) {
	t.line(depth, name, a.String())
	if _, _, ok := a.EID(); ok {
		return
	}
	l, err := a.LCAF()
	if err != nil {
		return
	}
	if v := reflect.ValueOf(l).Elem(); v.NumField() > 0 && depth < 16 {
		t.fields(depth+1, v)
	}
}
