package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"time"
)

// ErrBusy is in the chain of the error of a request for which there was no worker
// within Config.QueueFor.
var ErrBusy = errors.New("too many upstream requests under way")

// Error is a request that got no answer, or an answer that was refused or broke
// off. It implements net.Error and blob.Temporary.
type Error struct {
	Method string
	// URL is what was asked for, without query, user and fragment.
	URL string
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Method, e.URL, redact(e.Err.Error()))
}

// GoString implements fmt.GoStringer, so that %#v does not go below Error.
func (e *Error) GoString() string { return e.Error() }

// MarshalText implements encoding.TextMarshaler for the same reason.
func (e *Error) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }

// Unwrap returns the cause, whose own text is not redacted.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the registry did not answer, or went on, in time.
func (e *Error) Timeout() bool {
	var n interface{ Timeout() bool } // also of stall.Error, which is no net.Error
	return errors.As(e.Err, &n) && n.Timeout()
}

// RetryAfter returns how long to wait before the same request is worth another try;
// 0 if there is nothing to say. It implements blob.RetryAfter.
func (e *Error) RetryAfter() time.Duration {
	if errors.Is(e.Err, ErrBusy) {
		return time.Second
	}
	return 0
}

// Temporary reports whether the same request may succeed later.
func (e *Error) Temporary() bool {
	var (
		address *AddressError
		realm   *RealmError
		hop     *RedirectError
		cert    *tls.CertificateVerificationError
	)
	return !errors.As(e.Err, &address) && !errors.As(e.Err, &realm) && !errors.As(e.Err, &hop) &&
		!errors.As(e.Err, &cert) && !errors.Is(e.Err, errRequest) && !errors.Is(e.Err, context.Canceled)
}

// AddressError is the refusal to dial an address that is not a public one.
type AddressError struct {
	Addr netip.Addr
	Kind string // what it is, such as "loopback"
}

// Error implements error.
func (e *AddressError) Error() string {
	return fmt.Sprintf("%s is a %s address: to allow it, list it in server.allowAddresses", e.Addr, e.Kind)
}

// RealmError is a challenge that would send the caller's credentials where they do
// not belong.
type RealmError struct {
	Host  string // of the registry
	Realm string // where its challenge points to, without query
	Why   string
}

// Error implements error.
func (e *RealmError) Error() string {
	if e.Realm == "" {
		return fmt.Sprintf("challenge of %s refused: %s", e.Host, e.Why)
	}
	return fmt.Sprintf("challenge of %s names token server %s, %s", e.Host, e.Realm, e.Why)
}

// RedirectError is a redirect that is not followed.
type RedirectError struct {
	To  string // without query; may be empty
	Why string
}

// Error implements error.
func (e *RedirectError) Error() string {
	if e.To == "" {
		return "redirect refused: " + e.Why
	}
	return fmt.Sprintf("redirect to %s refused: %s", e.To, e.Why)
}

// errRequest is the begin of errors of requests that are not sent.
var errRequest = errors.New("request not sent")

// fail makes an *Error of err.
func fail(method string, u *url.URL, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*url.Error](err); ok { // its text has the whole URL
		err = e.Err
	}
	return &Error{Method: method, URL: plain(u), Err: err}
}

// plain returns a URL without what may be secret in it.
func plain(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// secrets finds what must not get into texts: the query of a URL, which signs it,
// a URL's user, and credentials.
var secrets = regexp.MustCompile(`(?i)(https?://[^\s?"'<>]*)\?[^\s"'<>]*|\b(bearer|basic) +[-\w.~+/]+=*|https?://[^\s/@"'<>]+@`)

// redact removes secrets from the text of an error of net/http or of an answer.
func redact(text string) string { return secrets.ReplaceAllString(text, "$1$2?[redacted]") }
