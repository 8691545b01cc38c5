// Package mmsg is the system calls recvmmsg and sendmmsg of Linux, which take
// many datagrams at once, and what goes in and out of them: socket addresses
// and control messages, without allocation. It is empty elsewhere.
package mmsg
