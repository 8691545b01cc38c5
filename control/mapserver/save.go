package mapserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// saveMagic starts a stream of Deltas; the digit is the version.
const saveMagic = "xtrkit-mapserver-2\n"

// maxDelta bounds one Delta in a stream: a record with 255 locators fits.
const maxDelta = 1 << 18

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save writes the whole state as a stream of Deltas, each with its length and a
// checksum, as the time before them has. The state holds no keys.
func (s *Server) Save(now time.Time, w io.Writer) error {
	bw := bufio.NewWriter(w)
	// What the clock says, and what it would say without its steps since the first
	// call: the times in Deltas are those.
	b := append([]byte(nil), saveMagic...)
	for _, t := range [...]time.Time{now, s.fromTicks(s.toTicks(now))} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.UnixNano()))
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := bw.Write(b); err != nil {
		return fmt.Errorf("mapserver: save: %w", err)
	}
	for d := range s.Snapshot() {
		var err error
		if b, err = appendFrame(b[:0], &d); err != nil {
			return err
		}
		if _, err = bw.Write(b); err != nil {
			return fmt.Errorf("mapserver: save: %w", err)
		}
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("mapserver: save: %w", err)
	}
	return nil
}

func appendFrame(b []byte, d *Delta) ([]byte, error) {
	b, err := d.AppendBinary(append(b, make([]byte, 8)...))
	if err != nil {
		return b, err
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b, nil
}

// Load merges a stream that Save wrote, and says how many Deltas it used and
// how many it skipped because the configured sites no longer have them. A
// stream cut short is used as far as it goes; the error then wraps
// io.ErrUnexpectedEOF.
//
// A registration has the rest of its lifetime that it had when it was saved, less
// what the clock says has passed since. A clock that has stepped between Save and
// Load, as one that is set only some time after the system's start, lets it end too
// soon, or live on for that rest, but never longer.
func (s *Server) Load(now time.Time, r io.Reader) (used, skipped int, err error) {
	br := bufio.NewReader(r)
	const times = 2 * 8
	start := make([]byte, len(saveMagic)+times+crc32.Size)
	if _, err := io.ReadFull(br, start); err != nil {
		return 0, 0, fmt.Errorf("mapserver: load: %w", err)
	}
	if string(start[:len(saveMagic)]) != saveMagic {
		return 0, 0, fmt.Errorf("mapserver: load: %w: not a stream of deltas", ErrDelta)
	}
	if sum := len(start) - crc32.Size; crc32.Checksum(start[:sum], castagnoli) != binary.BigEndian.Uint32(start[sum:]) {
		return 0, 0, fmt.Errorf("mapserver: load: %w: checksum", ErrDelta)
	}
	at := func(i int) time.Time {
		return time.Unix(0, int64(binary.BigEndian.Uint64(start[len(saveMagic)+8*i:])))
	}
	saved := now.Add(-max(0, now.Sub(at(0)))) // when it was, by the clock of now
	var buf []byte
	for {
		var head [8]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return used, skipped, nil
			}
			return used, skipped, fmt.Errorf("mapserver: load: %w", err)
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > maxDelta {
			return used, skipped, fmt.Errorf("mapserver: load: %w: %d octets", ErrDelta, n)
		}
		buf = append(buf[:0], make([]byte, n)...)
		if _, err := io.ReadFull(br, buf); err != nil {
			return used, skipped, fmt.Errorf("mapserver: load: %w", noEOF(err))
		}
		if crc32.Checksum(buf, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
			return used, skipped, fmt.Errorf("mapserver: load: %w: checksum", ErrDelta)
		}
		var d Delta
		if err := d.UnmarshalBinary(buf); err != nil {
			return used, skipped, fmt.Errorf("mapserver: load: %w", err)
		}
		d.Seen, d.Expiry = saved.Add(d.Seen.Sub(at(1))), saved.Add(d.Expiry.Sub(at(1)))
		if _, err := s.Merge(now, d); err != nil {
			s.log.Warn("saved registration skipped", "eid", d.EID, "iid", d.IID, "site", d.Site, "err", err)
			skipped++
			continue
		}
		used++
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
