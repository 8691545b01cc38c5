// Package conf reads the configuration files of lispmn and lispms.
//
// The grammar is the one LISPmob's lispd.conf and OpenOverlayRouter's oor.conf
// use (libConfuse), so that files of both are read unchanged:
//
//	# a comment, // another, /* and a third */
//	map-request-retries = 2            // an option; its name is not case-sensitive
//	map-resolver = { 192.0.2.1, mr.example.net }   # a list
//	map-server {                       # a section, that may come several times
//	    address  = 192.0.2.1
//	    key-type = 2
//	    key      = "a secret # with a hash"
//	}
//
// Every option of both formats is known here. What this software cannot do is
// an error when starting without it would do something else than the file
// asks for, and a warning otherwise; both name the line, the option and the
// reason. A name nobody knows is an error too, with the nearest known name.
//
// Reading has three steps, one file each: the lexer (lexer.go) and the parser
// (parser.go) make a tree of items with line numbers, check.go holds the tree
// against the table of options (options.go), and node.go and mapserver.go
// turn the checked tree into the typed configuration of one program. All
// errors of a file are collected, so that one run shows all of them; only
// a syntax error stands for itself, and that something is missing is not said where
// it may be the consequence of another error.
//
// The package is used at start and on reload only; nothing in it is safe for
// concurrent use except by not sharing it.
package conf
