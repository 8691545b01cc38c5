package control

import (
	"context"
	"log/slog"
)

// logEvent writes ev with the keys that all of this module's packages use: eid
// rloc nonce peer map_server map_resolver locator ttl err reason.
func (e *Engine) logEvent(ev Event) {
	level := slog.LevelInfo
	switch ev := ev.(type) {
	case NATChanged:
		if ev.New.Reason != "" { // who is behind a NAT that doesn't work shall see why
			level = slog.LevelWarn
		}
	case MapRequestSent, MapRequestReceived, SMRSent, MapReplyReceived, NegativeReply, CacheAdded, CacheRefreshed, CacheRemoved, NonceReserved:
		level = slog.LevelDebug
	case RegisterUnanswered, RegisterFailed, Displaced, ResolutionFailed, Dropped:
		level = slog.LevelWarn
	}
	ctx := context.Background()
	if !e.log.Enabled(ctx, level) {
		return
	}
	msg, attrs := logAttrs(ev)
	e.log.LogAttrs(ctx, level, msg, attrs...) //nolint:sloglint // msg is one of the constants below
}

func logAttrs(ev Event) (string, []slog.Attr) {
	a := func(kv ...slog.Attr) []slog.Attr { return kv }
	switch ev := ev.(type) {
	case Registered:
		return "registered", a(slog.Any("map_server", ev.MapServer), slog.String("eid", keyList(ev.EIDs)), slog.Duration("rtt", ev.RTT))
	case RegisterUnanswered:
		return "no map-notify", a(slog.Any("map_server", ev.MapServer), slog.String("eid", keyList(ev.EIDs)), slog.Any("nonce", ev.Nonce), slog.Int("tries", ev.Tries),
			slog.String("perhaps", "it is not reachable, or does not know this eid with this key"))
	case RegisterFailed:
		return "registration failed", a(slog.Any("map_server", ev.MapServer), slog.String("eid", keyList(ev.EIDs)), slog.String("reason", ev.Reason))
	case Withdrawn:
		return "withdrawn", a(slog.Any("map_server", ev.MapServer), slog.String("eid", keyList(ev.EIDs)))
	case UnsolicitedNotify:
		return "unsolicited map-notify", a(slog.Any("map_server", ev.MapServer), slog.String("eid", keyList(ev.EIDs)))
	case Displaced:
		return "displaced", a(slog.Any("map_server", ev.MapServer), slog.Any("eid", ev.EID), slog.String("rloc", addrList(ev.RLOCs)))
	case NonceReserved:
		return "nonces reserved", a(slog.Any("nonce", ev.Nonce))
	case MapRequestSent:
		return "map-request sent", a(slog.Any("eid", ev.EID), slog.Any("map_resolver", ev.MapResolver), slog.Any("nonce", ev.Nonce), slog.Int("try", ev.Try))
	case MapRequestReceived:
		return "map-request received", a(slog.Any("eid", ev.EID), slog.Any("peer", ev.From), slog.Bool("smr", ev.SMR))
	case SMRSent:
		return "smr sent", a(slog.Any("eid", ev.EID), slog.Any("peer", ev.To), slog.Int("try", ev.Try))
	case MapReplyReceived:
		return "map-reply received", a(slog.Any("eid", ev.EID), slog.Any("peer", ev.From), slog.String("rloc", rlocList(ev.RLOCs)), slog.Duration("ttl", ev.TTL))
	case NegativeReply:
		return "negative map-reply received", a(slog.Any("eid", ev.EID), slog.Any("peer", ev.From), slog.Any("action", ev.Action), slog.Duration("ttl", ev.TTL))
	case ResolutionFailed:
		return "no map-reply", a(slog.Any("eid", ev.EID), slog.Int("tries", ev.Tries))
	case CacheAdded:
		return "map-cache entry added", a(slog.Any("eid", ev.Key), slog.String("rloc", forwardingString(ev.Verdict, ev.RLOCs)))
	case CacheRefreshed:
		return "map-cache entry refreshed", a(slog.Any("eid", ev.Key), slog.Duration("ttl", ev.TTL))
	case CacheRemoved:
		return "map-cache entry removed", a(slog.Any("eid", ev.Key), slog.String("reason", ev.Reason.String()))
	case LocatorsChanged:
		return "map-cache entry changed", a(slog.Any("eid", ev.Key), slog.String("rloc", forwardingString(ev.NewVerdict, ev.New)))
	case LocalsChanged:
		return "own locators changed", a(slog.Int("locators", len(ev.Locals)))
	case ProbeUp:
		return "locator up", a(slog.Any("locator", ev.Locator.Addr), slog.Any("rloc", ev.Local), slog.Duration("rtt", ev.RTT))
	case ProbeDown:
		return "locator down", a(slog.Any("locator", ev.Locator.Addr), slog.Any("rloc", ev.Local), slog.Int("tries", ev.Tries))
	case StatusBits:
		return "locator-status-bits changed", a(slog.Any("eid", ev.Key), slog.Any("peer", ev.From), slog.Uint64("lsbs", uint64(ev.LSBs)))
	case EchoNonce:
		return "echo-nonce", a(slog.Any("locator", ev.Locator), slog.Bool("up", ev.Up))
	case Dropped:
		return "dropped", a(slog.String("reason", ev.Reason.String()), slog.Any("peer", ev.Peer), slog.String("detail", ev.Detail))
	default:
		return ev.String(), nil
	}
}
