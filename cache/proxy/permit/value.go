package permit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"mime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// value is a permission as it is shared: that it is allowed, for how long, and what the
// upstream said of the resource.
type value struct {
	// life is how long it counts from when its HEAD was sent, in nanoseconds.
	life time.Duration
	// expires is when that ends, by the clock of the replica that sent it.
	expires time.Time
	desc    ocispec.Descriptor // MediaType, Digest, Size
}

const (
	valueVersion = 1
	maxText      = 255 // bytes of a digest or media type
	valueHead    = 1 + 3*8
)

var errValue = errors.New("not a permission")

// append appends the text form: version, life, expiry as Unix time in nanoseconds, size,
// digest and media type, each of the last two after a byte with its length; all numbers
// have 8 bytes, the highest first. It is an error if parseValue would not read it.
func (v *value) append(b []byte) ([]byte, error) {
	if len(v.desc.Digest) > maxText || len(v.desc.MediaType) > maxText {
		return nil, errValue
	}
	start := len(b)
	b = append(b, valueVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(v.life))
	b = binary.BigEndian.AppendUint64(b, uint64(v.expires.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(v.desc.Size))
	for _, s := range []string{string(v.desc.Digest), v.desc.MediaType} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	if _, err := parseValue(b[start:]); err != nil {
		return nil, err
	}
	return b, nil
}

// parseValue reads what append wrote, and nothing else.
func parseValue(b []byte) (value, error) {
	if len(b) < valueHead || b[0] != valueVersion {
		return value{}, errValue
	}
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[1+8*i:])) }
	v := value{life: time.Duration(number(0)), expires: time.Unix(0, number(1))}
	v.desc.Size = number(2)
	var texts [2]string
	rest := b[valueHead:]
	for i := range texts {
		if len(rest) == 0 || len(rest)-1 < int(rest[0]) {
			return value{}, errValue
		}
		texts[i], rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
	}
	v.desc.Digest, v.desc.MediaType = digest.Digest(texts[0]), texts[1]
	if len(rest) > 0 || v.life <= 0 || v.life > maxLife || v.desc.Size < -1 ||
		v.desc.Digest != "" && v.desc.Digest.Validate() != nil || !isMediaType(v.desc.MediaType) {
		return value{}, errValue
	}
	return v, nil
}

// isMediaType reports whether s is what is kept of a Content-Type, or "".
func isMediaType(s string) bool {
	if s == "" {
		return true
	}
	mt, params, err := mime.ParseMediaType(s)
	return err == nil && len(params) == 0 && mt == s
}

// seal returns the value with its MAC before it, which is good for this name and epoch
// only.
func (s *sharing) seal(n *Name, epoch uint64, v *value) ([]byte, error) {
	b, err := v.append(make([]byte, sha256.Size, 256))
	if err != nil {
		return nil, err
	}
	copy(b, s.mac(n, epoch, b[sha256.Size:]))
	return b, nil
}

// open is the reverse of seal.
func (s *sharing) open(n *Name, epoch uint64, b []byte) (value, error) {
	if len(b) < sha256.Size || !hmac.Equal(b[:sha256.Size], s.mac(n, epoch, b[sha256.Size:])) {
		return value{}, errValue
	}
	return parseValue(b[sha256.Size:])
}

// mac returns the MAC of a value. All but its last field are of fixed length.
func (s *sharing) mac(n *Name, epoch uint64, b []byte) []byte {
	h := hmac.New(sha256.New, s.values)
	h.Write(n.Scope[:])
	h.Write(n.Item[:])
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], epoch)
	h.Write(number[:])
	h.Write(b)
	return h.Sum(nil)
}
