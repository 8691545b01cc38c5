// Command lispms is a LISP Map-Server and Map-Resolver (RFC 9301). See the
// package examples/internal/mapserverd for how it is put together.
package main

import (
	"context"
	"os"

	"github.com/xtrkit/xtrkit/examples/internal/mapserverd"
)

func main() {
	os.Exit(mapserverd.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
