// Package statusd lets people and tools look into a running lispmn or lispms:
// HTTP and JSON on a unix socket that only its owner can open.
//
//	GET /status              one Status, the whole state at one moment
//	GET /events              the events kept so far and then new ones as they
//	                         come, one JSON Event per line, until the client leaves
//	GET /events?after=N      only events with a sequence number above N
//	GET /events?follow=0     only what is kept
//	GET /capture?interface=N packets of interfaces as pcapng, until the client leaves
//	POST /do/ACTION          has something done, see the constants Action...; what it
//	                         takes and gives is JSON
//
// lispconf is the client for people. From a shell:
//
//	curl --unix-socket /run/lispmn.sock http://x/status
//
// The socket is also what keeps two daemons from using one configuration:
// Listen holds a lock next to it as long as the process lives, however it ends.
package statusd
