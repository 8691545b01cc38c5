// Package tutorial runs the tutorials of docs/tutorials as they are written: it
// takes the fenced blocks out of the Markdown, types them into a shell and
// compares what comes back with what the text shows.
//
// # What is in a tutorial
//
// A block marked sh is a script that is run as a whole; what it prints is not
// shown and not compared, but it must end with 0. It is for files and networks to
// be made.
//
// A block marked console is a session: lines that start with "# " are commands, and the
// lines below each are what it prints. A command must end with 0; one that
// is to fail goes on with "|| echo $?", and what fails is shown.
// A line "..." in the output stands for any number of lines, and "…" in a line for anything in it.
//
// Other blocks are not run.
//
// # What is compared
//
// Times, process IDs, hexadecimal nonces and the like differ from run to run. Before
// lines are compared, numbers with a unit of time, clock times and dates, long hexadecimal
// words, and runs of spaces are each replaced by a placeholder, in what is shown and in what came.
//
// go test ./internal/tutorial -update writes what came in place of what is shown where the two differ.
package tutorial
