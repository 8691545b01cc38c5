package load

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
)

const (
	batchSize  = 64
	maxMessage = 512
)

// question is an unanswered message.
type question struct {
	nonce   lisp.Nonce
	eid     uint32
	request bool
	sent    time.Time
}

// sender is one socket with its share of the load. It runs in one goroutine.
type sender struct {
	cfg    *Config
	pc     *net.UDPConn
	conn   control.Conn
	local  netip.AddrPort
	auth   *lisp.Authenticator
	random *rand.Rand
	report Report
	last   time.Time // of the last answer

	number, left int
	turn         int // of the EIDs that this sender registers
	nonce        lisp.Nonce
	window       int
	open         int
	questions    []question // by nonce; a ring
	oldest       lisp.Nonce // that may be unanswered

	register lisp.MapRegister
	request  lisp.MapRequest
	payload  []byte
	packet   []byte
	out, in  [batchSize]lisp.Datagram
	outBufs  [batchSize][]byte
	inBufs   [batchSize][]byte
}

func newSender(cfg *Config, number int, pc *net.UDPConn) *sender {
	s := &sender{
		cfg: cfg, pc: pc, conn: control.NewConn(pc), number: number,
		local:  pc.LocalAddr().(*net.UDPAddr).AddrPort(),
		auth:   lisp.NewAuthenticator(cfg.Key),
		random: rand.New(rand.NewPCG(uint64(number), 1)),
		left:   share(cfg.Count, number, cfg.Sockets),
		window: share(cfg.Window, number, cfg.Sockets),
		nonce:  cfg.Nonce,
	}
	s.local = netip.AddrPortFrom(s.local.Addr().Unmap(), s.local.Port())
	s.questions = make([]question, 2*s.window)
	s.oldest = s.nonce + 1
	for i := range batchSize {
		s.outBufs[i] = make([]byte, 0, maxMessage)
		s.inBufs[i] = make([]byte, maxMessage)
	}
	s.register = lisp.MapRegister{
		ProxyReply: true, WantMapNotify: true, XTRIDPresent: true, SiteID: 1,
		Auth: lisp.Authentication{KeyID: cfg.Key.ID, Algorithm: cfg.Key.Algorithm, Data: make([]byte, cfg.Key.DigestLen())},
		Records: []lisp.EIDRecord{{TTL: 10, MaskLen: 32, Authoritative: true, Locators: []lisp.RLOCRecord{{
			Priority: 1, Weight: 100, MPriority: 255, Local: true, Reachable: true,
		}}}},
	}
	s.request = lisp.MapRequest{
		SourceEID: lisp.AddressFrom(eid(0)), ITRRLOCs: []lisp.Address{lisp.AddressFrom(s.local.Addr())},
		Records: []lisp.RequestRecord{{MaskLen: 32}},
	}
	return s
}

// share is part number i of n in parts.
func share(n, i, parts int) int { return n*(i+1)/parts - n*i/parts }

func eid(i uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// rloc is the locator that EID i is registered with.
func rloc(i uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i%250)})
}

func (s *sender) run(ctx context.Context) {
	reader := s.conn.Readers()[0]
	start := time.Now()
	paced := 0
	for {
		now := time.Now()
		ended := ctx.Err() != nil
		n := min(s.window-s.open, batchSize, s.left)
		if s.cfg.Rate > 0 {
			due := int(now.Sub(start).Seconds() * s.cfg.Rate / float64(s.cfg.Sockets))
			n = min(n, due-paced)
		}
		if ended {
			n, s.left = 0, 0
		}
		if n > 0 {
			paced += n
			s.ask(now, n)
		}
		if s.left == 0 && s.open == 0 {
			return
		}
		wait := 20 * time.Millisecond
		if s.cfg.Rate > 0 && s.left > 0 {
			wait = time.Millisecond
		}
		_ = s.pc.SetReadDeadline(now.Add(wait))
		for i := range s.in {
			s.in[i] = lisp.Datagram{Bytes: s.inBufs[i]}
		}
		got, err := reader.ReadDatagrams(s.in[:])
		now = time.Now()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			for _, d := range s.in[:got] {
				s.answered(now, d.Bytes)
			}
		}
		s.giveUp(now)
	}
}

// ask sends n messages.
func (s *sender) ask(now time.Time, n int) {
	out := s.out[:0]
	for range n {
		q := question{sent: now, request: s.cfg.Requests > 0 && s.random.Float64() < s.cfg.Requests}
		s.nonce++
		q.nonce = s.nonce
		slot := &s.questions[uint64(q.nonce)%uint64(len(s.questions))]
		if slot.nonce != 0 { // still open after a whole turn of the ring
			s.lost(slot)
		}
		b := s.outBufs[len(out)]
		if q.request {
			q.eid = uint32(s.random.IntN(s.cfg.EIDs))
			b = s.encodeRequest(b, &q)
		} else {
			q.eid = uint32(s.number + s.turn*s.cfg.Sockets)
			if s.turn++; int(q.eid) >= s.cfg.EIDs {
				q.eid, s.turn = uint32(s.number), 1
			}
			b = s.encodeRegister(b, &q)
		}
		*slot = q
		s.open++
		out = append(out, lisp.Datagram{Remote: s.cfg.Server, Bytes: b})
	}
	s.left -= n
	s.report.Sent += uint64(n)
	sent, err := s.conn.WriteDatagrams(out)
	if err != nil {
		s.report.SendErrors += uint64(n - sent)
	}
}

func (s *sender) encodeRegister(b []byte, q *question) []byte {
	m := &s.register
	m.Nonce = q.nonce
	binary.BigEndian.PutUint32(m.XTRID[12:], q.eid+1)
	m.Records[0].EID = lisp.AddressFrom(eid(q.eid))
	m.Records[0].Locators[0].RLOC = lisp.AddressFrom(rloc(q.eid))
	b, err := m.AppendBinary(b[:0])
	if err == nil {
		err = s.auth.Sign(b)
	}
	if err != nil {
		panic(err) // the messages are always the same
	}
	return b
}

func (s *sender) encodeRequest(b []byte, q *question) []byte {
	s.request.Nonce = q.nonce
	s.request.Records[0].EID = lisp.AddressFrom(eid(q.eid))
	var err error
	if s.payload, err = s.request.AppendBinary(s.payload[:0]); err != nil {
		panic(err)
	}
	s.packet, err = lisp.AppendInner(s.packet[:0], lisp.Inner{
		Source: netip.AddrPortFrom(eid(0), s.local.Port()), Destination: netip.AddrPortFrom(eid(q.eid), lisp.ControlPort), Payload: s.payload,
	})
	if err != nil {
		panic(err)
	}
	m := lisp.EncapsulatedControl{Packet: s.packet}
	if b, err = m.AppendBinary(b[:0]); err != nil {
		panic(err)
	}
	return b
}

// answered pairs an answer with its question.
func (s *sender) answered(now time.Time, b []byte) {
	if len(b) < 12 {
		s.report.Wrong++
		return
	}
	nonce := lisp.Nonce(binary.BigEndian.Uint64(b[4:]))
	q := &s.questions[uint64(nonce)%uint64(len(s.questions))]
	want := lisp.TypeMapNotify
	if q.request {
		want = lisp.TypeMapReply
	}
	if nonce == 0 || q.nonce != nonce || lisp.TypeOf(b) != want {
		s.report.Wrong++ // or it comes too late
		return
	}
	if s.report.Answered%uint64(s.cfg.Check) == 0 {
		s.report.Checked++
		if !s.right(q, b) {
			s.report.Wrong++
		}
	}
	s.report.Answered++
	s.report.Latency.Observe(now.Sub(q.sent))
	s.last = now
	q.nonce = 0
	s.open--
}

// right checks an answer in full.
func (s *sender) right(q *question, b []byte) bool {
	m, err := lisp.Parse(b)
	if err != nil {
		return false
	}
	var records []lisp.EIDRecord
	switch m := m.(type) {
	case *lisp.MapNotify:
		if s.auth.Verify(b) != nil {
			return false
		}
		records = m.Records
	case *lisp.MapReply:
		records = m.Records
	}
	if len(records) != 1 || len(records[0].Locators) != 1 {
		return false
	}
	_, p, ok := records[0].Prefix()
	at, _ := records[0].Locators[0].RLOC.IP()
	return ok && p == netip.PrefixFrom(eid(q.eid), 32) && at == rloc(q.eid)
}

// giveUp counts what is unanswered for too long as lost.
func (s *sender) giveUp(now time.Time) {
	for ; s.oldest <= s.nonce; s.oldest++ {
		q := &s.questions[uint64(s.oldest)%uint64(len(s.questions))]
		if q.nonce != s.oldest {
			continue
		}
		if now.Sub(q.sent) < s.cfg.Timeout {
			return
		}
		s.lost(q)
	}
}

func (s *sender) lost(q *question) {
	q.nonce = 0
	s.open--
	s.report.Lost++
}
