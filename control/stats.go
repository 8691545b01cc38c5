package control

import "fmt"

// DropReason says why the engine dropped a received message, or did not send
// one.
type DropReason uint8

// Reasons to drop.
const (
	DropMalformed        DropReason = iota // it does not parse
	DropUnknownNonce                       // a Map-Reply that answers nothing we asked
	DropNotAsked                           // a record whose EID-Prefix does not cover the EID asked for
	DropTooBroad                           // a positive record shorter than the configured minimum
	DropNotAuthoritative                   // a probe reply with a record without the A bit
	DropWrongLocator                       // a probe reply about another locator than the one probed
	DropAuthentication                     // a Map-Notify, LISP-SEC data or One-Time Key that does not verify
	DropUnknownSender                      // a Map-Notify from no Map-Server of ours
	DropNotOurEID                          // a Map-Request for an EID-Prefix that is not ours
	DropNoITRRLOC                          // a Map-Request that names no address to answer to
	DropNoReplyWanted                      // a Map-Request with the D bit
	DropEncapsulated                       // a message that must not come encapsulated
	DropSecured                            // an Encapsulated Control Message with security data we cannot honour
	DropNotSecured                         // a Map-Reply without LISP-SEC data to a protected Map-Request
	DropSecurityFunction                   // a Map-Reply protected by other functions than requested
	DropOverclaim                          // a record whose EID-Prefix the Map-Server does not vouch for
	DropUnprotectedPath                    // a Map-Request with an unencrypted One-Time Key on a path that is not protected
	DropNotCached                          // an SMR for an EID we have no mapping of
	DropMapReplyRate                       // a Map-Reply not sent, by its rate limit
	DropMapRequestRate                     // a Map-Request postponed, by its rate limit
	DropPendingFull                        // an EID not resolved, since too many are
	DropNoLocal                            // a message not sent for want of an own locator of that address family
	DropQueueFull                          // a datagram not sent, since Next is not called enough
	DropCacheFull                          // a mapping not stored, since the map-cache is full of entries in use
	DropTooManyPaths                       // a locator not probed, since too many are
	DropTooManyPeers                       // an SMR not sent, since too many are under way
	DropNotServed                          // an EID not resolved: outside the aggregates of a Proxy-ITR
	DropSMRRate                            // an SMR not followed, by its rate limit
	DropMapVersion                         // of a closed network: data packets with a newer Map-Version of ours than ours
	DropOldVersion                         // a record of an older Map-Version than the map-cache has, not authoritative
	DropForeignStatus                      // Locator-Status-Bits from an address that is no locator of the site
	DropStatusRate                         // Locator-Status-Bits not yet obeyed, by their rate limit
	numDropReasons
)

var dropNames = [numDropReasons]string{
	DropMalformed:        "malformed",
	DropUnknownNonce:     "unknown nonce",
	DropNotAsked:         "EID-Prefix not asked for",
	DropTooBroad:         "EID-Prefix too broad",
	DropNotAuthoritative: "probe reply not authoritative",
	DropWrongLocator:     "probe reply for another locator",
	DropAuthentication:   "authentication failed",
	DropUnknownSender:    "sender is no Map-Server of ours",
	DropNotOurEID:        "EID is not ours",
	DropNoITRRLOC:        "no usable ITR-RLOC",
	DropNoReplyWanted:    "no reply wanted",
	DropEncapsulated:     "must not be encapsulated",
	DropSecured:          "LISP-SEC data not supported",
	DropNotSecured:       "no LISP-SEC data",
	DropSecurityFunction: "other LISP-SEC functions than requested",
	DropOverclaim:        "EID-Prefix not vouched for by the Map-Server",
	DropUnprotectedPath:  "One-Time Key not encrypted",
	DropNotCached:        "SMR for an EID without mapping",
	DropMapReplyRate:     "Map-Reply rate limit",
	DropMapRequestRate:   "Map-Request rate limit",
	DropPendingFull:      "too many EIDs under resolution",
	DropNoLocal:          "no local locator of that address family",
	DropQueueFull:        "send queue full",
	DropCacheFull:        "map-cache full",
	DropTooManyPaths:     "too many locators to probe",
	DropTooManyPeers:     "too many peers to tell",
	DropNotServed:        "not served by this Proxy-ITR",
	DropSMRRate:          "SMR rate limit",
	DropMapVersion:       "Map-Version newer than ours",
	DropOldVersion:       "Map-Version older than the cached one",
	DropForeignStatus:    "Locator-Status-Bits from no locator of the site",
	DropStatusRate:       "Locator-Status-Bits rate limit",
}

// NumDropReasons is how many drop reasons there are; they are numbered from 0.
const NumDropReasons = int(numDropReasons)

func (r DropReason) String() string {
	if r < numDropReasons {
		return dropNames[r]
	}
	return fmt.Sprintf("DropReason(%d)", uint8(r))
}

// Stats is a snapshot of what an Engine has counted.
type Stats struct {
	MapRequestsSent     uint64 // for resolution and refresh
	MapRequestsReceived uint64 // probes included
	MapRepliesSent      uint64 // probe replies included
	MapRepliesReceived  uint64 // accepted ones; probe replies not included
	SecuredReplies      uint64 // Map-Replies verified by LISP-SEC
	LISPSECFallbacks    uint64 // EIDs asked for without LISP-SEC since no ETR does it
	NegativeReplies     uint64 // accepted records without locators
	MapRegistersSent    uint64 // retransmissions included
	MapNotifiesReceived uint64 // verified ones
	MapNotifyAcksSent   uint64
	Publications        uint64 // Map-Notifies about subscriptions, confirmations included
	ProbesSent          uint64
	ProbeRepliesSent    uint64
	ProbeRepliesRecv    uint64 // accepted ones
	SMRsSent            uint64
	SMRsReceived        uint64 // that led to a Map-Request
	NoncesEchoed        uint64 // tests of locators by Echo-Nonce that went well
	NoncesUnechoed      uint64 // and that did not
	ResolutionsFailed   uint64 // EIDs given up after all retransmissions
	EventsLost          uint64 // events overwritten before NextEvent took them
	Dropped             [NumDropReasons]uint64

	// Gauges.
	Pending       int // EIDs under resolution, and those whose rate limit still runs
	Paths         int // (local, remote) locator pairs probed
	PathsDown     int
	Registrations int // Map-Registers per round
	Registered    int // of those, acknowledged
	CacheEntries  int
	Subscriptions int // asked for or confirmed, see Experimental
}

// Stats returns a snapshot of the counters.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.Pending = len(e.pending)
	s.Paths = len(e.paths)
	for _, p := range e.paths {
		if p.down {
			s.PathsDown++
		}
	}
	for _, r := range e.registrations {
		s.Registrations++
		if r.state == StateRegistered {
			s.Registered++
		}
	}
	s.CacheEntries = e.cache.Len()
	s.Subscriptions = len(e.subscriptions)
	return s
}
