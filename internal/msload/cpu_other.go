//go:build !linux

package main

import "time"

func (c *child) cpu() time.Duration { return 0 }

func (c *child) memory() string { return "-" }
