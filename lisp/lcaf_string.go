package lisp

// String implements LCAF.
func (l *RawLCAF) String() string { return l.text(1) }

// String implements LCAF.
func (l *Null) String() string { return l.text(1) }

// String implements LCAF.
func (l *InstanceID) String() string { return l.text(1) }

// String implements LCAF.
func (l *ASNumber) String() string { return l.text(1) }

// String implements LCAF.
func (l *AFIList) String() string { return l.text(1) }

// String implements LCAF.
func (l *ExplicitPath) String() string { return l.text(1) }

// String implements LCAF.
func (l *ReplicationList) String() string { return l.text(1) }

// String implements LCAF.
func (l *MulticastInfo) String() string { return l.text(1) }

// String implements LCAF.
func (l *SourceDest) String() string { return l.text(1) }

// String implements LCAF.
func (l *KeyValue) String() string { return l.text(1) }

// String implements LCAF.
func (l *NATTraversal) String() string { return l.text(1) }

// String implements LCAF.
func (l *SecurityKey) String() string { return l.text(1) }

// String implements LCAF.
func (l *OpaqueKey) String() string { return l.text(1) }

// String implements LCAF.
func (l *GeoCoordinates) String() string { return l.text(1) }

// String implements LCAF.
func (l *ApplicationData) String() string { return l.text(1) }

// String implements LCAF.
func (l *NonceLocator) String() string { return l.text(1) }

// String implements LCAF.
func (l *EncapsulationFormat) String() string { return l.text(1) }

// String implements LCAF.
func (l *JSON) String() string { return l.text(1) }

// String implements LCAF.
func (l *VendorSpecific) String() string { return l.text(1) }
