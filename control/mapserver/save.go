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
const saveMagic = "xtrkit-mapserver-1\n"

// maxDelta bounds one Delta in a stream: a record with 255 locators fits.
const maxDelta = 1 << 18

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save writes the whole state as a stream of Deltas, each with its length and a
// checksum. The state holds no keys.
func (s *Server) Save(w io.Writer) error {
	bw := bufio.NewWriter(w)
	if _, err := bw.WriteString(saveMagic); err != nil {
		return fmt.Errorf("mapserver: save: %w", err)
	}
	var b []byte
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
func (s *Server) Load(now time.Time, r io.Reader) (used, skipped int, err error) {
	br := bufio.NewReader(r)
	magic := make([]byte, len(saveMagic))
	if _, err := io.ReadFull(br, magic); err != nil {
		return 0, 0, fmt.Errorf("mapserver: load: %w", err)
	}
	if string(magic) != saveMagic {
		return 0, 0, fmt.Errorf("mapserver: load: %w: not a stream of deltas", ErrDelta)
	}
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
