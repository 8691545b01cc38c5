// Package shareport lets sockets send from a UDP port that others receive at.
//
// An RTR sends data packets from the port of its control plane, 4342, as the
// NATs before its xTRs let in nothing else. Sockets of one port (SO_REUSEPORT)
// share what arrives, too, so who receives there attaches a program that leaves
// the senders nothing. That works on Linux only; elsewhere all functions return
// errors.ErrUnsupported.
package shareport
