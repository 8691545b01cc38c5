// Package probe measures a path with what any program could use: ICMP echo
// requests and a TCP transfer, over sockets that the caller opened where it
// wants to measure. It knows nothing of LISP.
package probe
