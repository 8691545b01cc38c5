// Package web shows the state of lispmn and lispms by HTTP: a status page, the
// metrics that Prometheus collects, and whether the program is well. It only
// reads; nothing can be changed by it.
//
//	/               the status page
//	/status         the state as JSON, as on the unix socket
//	/events         what happens, as server-sent events
//	/metrics        Prometheus text format
//	/healthz        200 and "ok", or 503 and the reason
//	/debug/pprof/   Go's profiles, if switched on
package web
