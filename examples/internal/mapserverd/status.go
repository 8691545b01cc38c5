package mapserverd

import (
	"context"
	"os"
	"time"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// Status returns the present state of the server.
func (s *Server) Status(ctx context.Context) (statusd.Status, error) {
	now := time.Now()
	st := statusd.Status{Program: "lispms", Version: s.cfg.Version, PID: os.Getpid(), Started: s.started, Time: now}
	if s.core != nil {
		st.MapServer = s.mapServerStatus(now)
	}
	if s.rtr == nil {
		return st, nil
	}
	err := s.runner.Do(ctx, func(now time.Time) { st.Time, st.RTR = now, s.rtr.Status(now) })
	return st, err
}

// mapServerStatus tells of sites and registrations.
func (s *Server) mapServerStatus(now time.Time) *statusd.MapServer {
	m := &statusd.MapServer{Refused: map[string]uint64{}}
	for _, site := range s.core.Sites(now) {
		out := statusd.Site{Name: site.Name}
		for _, p := range site.Prefixes {
			out.Prefixes = append(out.Prefixes, p.Prefix.String())
		}
		m.Sites = append(m.Sites, out)
	}
	for _, r := range s.core.Registrations(now) {
		m.Registrations = append(m.Registrations, entry(r))
	}
	for _, e := range s.core.History() {
		m.History = append(m.History, statusd.Past{Time: e.Time, Text: e.Event.String()})
	}
	for _, u := range s.core.MapServers() {
		m.MapServers = append(m.MapServers, statusd.MapServerHealth{Addr: u.Addr, Health: u.Health.String()})
	}
	c := s.core.Stats()
	m.Counters = map[string]uint64{
		"map-registers": c.Registers, "accepted": c.Accepted, "refreshes": c.Refreshes, "duplicates": c.Duplicates,
		"map-notifies": c.Notifies, "map-requests": c.Requests, "map-replies": c.Replies, "negative-replies": c.Negatives, "forwarded": c.Forwards,
		"moves": c.Moves, "unsolicited-map-notifies": c.UnsolicitedNotifies, "map-notify-acks": c.NotifyAcks, "map-notifies-unanswered": c.NotifiesUnanswered,
	}
	for r, n := range c.Dropped {
		if n > 0 {
			m.Refused[mapserver.Reason(r).String()] = n
		}
	}
	return m
}

func entry(r mapserver.Registration) statusd.SiteEntry {
	e := statusd.SiteEntry{Site: r.Site, IID: r.IID, Prefix: r.EID}
	for _, x := range r.XTRs {
		if x.Current && !e.From.IsValid() {
			e.From, e.Expires = x.From, x.Expiry
		}
	}
	for _, l := range r.RLOCs {
		ip, ok := l.RLOC.IP()
		if !ok {
			continue
		}
		out := statusd.RLOC{Addr: ip, Priority: l.Priority, Weight: l.Weight, State: "up"}
		if !l.Reachable {
			out.State = "down"
		}
		e.RLOCs = append(e.RLOCs, out)
	}
	return e
}
