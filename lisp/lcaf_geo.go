package lisp

import (
	"encoding/binary"
	"fmt"
	"math"
)

// AltitudeUnknown in GeoCoordinates.Altitude says that there is none.
const AltitudeUnknown = math.MaxInt32

// GeoCoordinates is an address with a place (RFC 8060 §4.3). lispers.net sends a
// later layout under the same type, which reads as nonsense here.
type GeoCoordinates struct {
	North     bool   // N: of the equator
	Latitude  Degree // 0..90°
	East      bool   // E: of the prime meridian
	Longitude Degree // 0..180°
	Altitude  int32  // metres above sea level, or AltitudeUnknown
	Address   Address
}

// Degree is a part of a GeoCoordinates.
type Degree struct {
	Degrees          uint16 // 15 bits
	Minutes, Seconds uint8  // 0..59
}

func (d Degree) String() string {
	return fmt.Sprintf("%d°%02d′%02d″", d.Degrees, d.Minutes, d.Seconds)
}

// LCAFType implements LCAF.
func (*GeoCoordinates) LCAFType() LCAFType { return LCAFGeoCoordinates }

func (l *GeoCoordinates) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	lat, lon := r.uint32("Latitude"), r.uint32("Longitude")
	l.North, l.Latitude = unpackDegree(lat)
	l.East, l.Longitude = unpackDegree(lon)
	l.Altitude = int32(r.uint32("Altitude"))
	r.address("Address", &l.Address)
	return r.err
}

func unpackDegree(w uint32) (bool, Degree) {
	return w>>31 != 0, Degree{uint16(w >> 16 & 0x7fff), uint8(w >> 8), uint8(w)}
}

func (l *GeoCoordinates) appendBody(b []byte) ([]byte, error) {
	if l.Latitude.Degrees > 0x7fff || l.Longitude.Degrees > 0x7fff {
		return b, lcafError(l, "Degrees", "%s %s", l.Latitude, l.Longitude)
	}
	for _, d := range [...]struct {
		positive bool
		Degree
	}{{l.North, l.Latitude}, {l.East, l.Longitude}} {
		b = binary.BigEndian.AppendUint32(b, bit(d.positive, 1<<31)|
			uint32(d.Degrees)<<16|uint32(d.Minutes)<<8|uint32(d.Seconds))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(l.Altitude))
	return l.Address.AppendBinary(b)
}

func (l *GeoCoordinates) text(depth int) string {
	ns, ew := "S", "W"
	if l.North {
		ns = "N"
	}
	if l.East {
		ew = "E"
	}
	alt := fmt.Sprintf(" %dm", l.Altitude)
	if l.Altitude == AltitudeUnknown {
		alt = ""
	}
	return fmt.Sprintf("geo(%s%s %s%s%s, %s)", l.Latitude, ns, l.Longitude, ew, alt, l.Address.text(depth))
}
