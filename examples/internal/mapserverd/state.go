package mapserverd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// saveInterval is the time between two savings of the registrations.
const saveInterval = time.Minute

// load takes over the registrations of the state file. Whatever is wrong with
// it, the server can work: xTRs register again.
func (s *Server) load(now time.Time) {
	path := s.cfg.Conf.StateFile
	if path == "" {
		return
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	used, skipped := 0, 0
	if err == nil {
		used, skipped, err = s.core.Load(now, f)
		_ = f.Close()
	}
	if err != nil {
		s.log.Warn("state file not used to its end", "file", path, "registrations", used, "err", err)
		return
	}
	s.log.Info("registrations loaded", "file", path, "registrations", used, "skipped", skipped)
}

// saveOften saves again and again until the context ends.
func (s *Server) saveOften(ctx context.Context) {
	if s.cfg.Conf.StateFile == "" {
		return
	}
	t := time.NewTicker(s.every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		var b bytes.Buffer
		var failed error
		// The octets are made on the loop, where nothing changes meanwhile, and
		// written beside it.
		if err := s.runner.Do(ctx, func(now time.Time) { failed = s.core.Save(now, &b) }); err != nil {
			return
		}
		if err := errors.Join(failed, writeFile(s.cfg.Conf.StateFile, b.Bytes())); err != nil {
			s.log.Error("registrations not saved", "err", err)
		}
	}
}

// save saves once. Nobody else may use the core.
func (s *Server) save() error {
	if s.cfg.Conf.StateFile == "" {
		return nil
	}
	var b bytes.Buffer
	if err := s.core.Save(time.Now(), &b); err != nil {
		return err
	}
	return writeFile(s.cfg.Conf.StateFile, b.Bytes())
}

// writeFile replaces a file, which nobody else can read, so that at any time
// either the old or the new one is there.
func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("state file: %w", err)
	}
	return nil
}
