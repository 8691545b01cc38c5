// Command lispmn makes a host a LISP mobile node (RFC 9300, RFC 9301), or shows
// two of them talk:
//
//	lispmn init              write a configuration
//	lispmn check FILE        say what is wrong with one
//	lispmn -f lispd.conf     run a node
//	lispmn cleanup FILE      remove what a killed one left
//	lispmn top               its traffic by locator and EID-Prefix
//	lispmn demo              two nodes and a Map-Server in a network of their own
//
// The node is put together in examples/internal/node; the demo is in the files
// demo*.go here and starts the same code as processes of their own.
package main

import (
	"context"
	"io"
	"os"

	"github.com/xtrkit/xtrkit/examples/internal/mapserverd"
	"github.com/xtrkit/xtrkit/examples/internal/node"
	"github.com/xtrkit/xtrkit/examples/internal/topview"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// argMapServer as first argument makes the process what lispms is. The demo
// starts itself so, as there may be no lispms installed.
const argMapServer = "map-server"

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "check":
			return node.Check(ctx, args[1:], stdout, stderr)
		case "cleanup":
			return node.Cleanup(ctx, args[1:], stdout, stderr)
		case "init":
			return initialise(ctx, args[1:], os.Stdin, stdout, stderr)
		case "demo":
			return demo(ctx, args[1:], stdout, stderr)
		case "top":
			return topview.Main(ctx, args[1:], node.DefaultSocket, stdout, stderr)
		case argMapServer:
			return mapserverd.Main(ctx, args[1:], stdout, stderr)
		}
	}
	return node.Main(ctx, args, stdout, stderr)
}
