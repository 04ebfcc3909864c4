package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

const (
	maxErrorBody = 64 << 10 // bytes of an error's body that are read
	maxExcerpt   = 200      // bytes of it that are kept
)

// Error is a request to a registry that did not end well.
type Error struct {
	// Host is who answered, or did not: the registry, a mirror, or where a
	// redirect led.
	Host string
	// Ref is the repository with the tag or digest asked for.
	Ref string
	// Status is that of the HTTP response; 0 if there was none.
	Status int
	// Excerpt is the begin of what the response said, without secrets.
	Excerpt string
	// Err is the cause if it was not the status.
	Err error

	after     time.Duration
	permanent bool
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "registry host %s: %s", e.Host, e.Ref)
	if e.Status != 0 && e.Err == nil {
		fmt.Fprintf(&b, ": %d %s", e.Status, http.StatusText(e.Status))
	}
	if e.Excerpt != "" {
		fmt.Fprintf(&b, ": %s", e.Excerpt)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if hint := e.hint(); hint != "" {
		fmt.Fprintf(&b, " (%s)", hint)
	}
	return b.String()
}

// hint says what a user can do about it.
func (e *Error) hint() string {
	switch {
	case e.Err != nil:
		return ""
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return "check the credentials in the docker config.json, and whether they may pull"
	case e.Status == http.StatusTooManyRequests && e.after > 0:
		return fmt.Sprintf("come back in %s", e.after)
	}
	return ""
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same request may succeed later.
func (e *Error) Temporary() bool { return !e.permanent }

// RetryAfter returns how long the registry wants to be left alone; 0 if it did
// not say.
func (e *Error) RetryAfter() time.Duration { return e.after }

// Is makes the error one of containerd's errdefs.
func (e *Error) Is(target error) bool {
	switch e.Status {
	case http.StatusNotFound, http.StatusGone:
		return target == errdefs.ErrNotFound
	case http.StatusUnauthorized:
		return target == errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		return target == errdefs.ErrPermissionDenied
	case http.StatusRequestedRangeNotSatisfiable:
		return target == errdefs.ErrOutOfRange
	case http.StatusTooManyRequests:
		return target == errdefs.ErrResourceExhausted
	}
	return e.Status >= 500 && target == errdefs.ErrUnavailable
}

// hostFault reports whether the error speaks against the host rather than
// against the request: its next requests better go to another one.
func (e *Error) hostFault() bool {
	return e.Status == 0 || e.Err != nil || e.Status == http.StatusTooManyRequests || e.Status >= 500
}

// statusError makes an error of a response, whose body it reads and closes.
func statusError(resp *http.Response, ref string) *Error {
	defer resp.Body.Close()
	e := &Error{
		Host: resp.Request.URL.Host, Ref: ref, Status: resp.StatusCode,
		after: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	switch s := resp.StatusCode; {
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests:
	case s >= 500 && s != http.StatusNotImplemented && s != http.StatusHTTPVersionNotSupported:
	default:
		e.permanent = true
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e.Excerpt = excerpt(body)
	return e
}

// transportError makes an error of a request that got no response, or of a body
// that broke off.
func transportError(host, ref string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	var u *url.Error
	if errors.As(err, &u) { // its text has the whole URL
		err = u.Err
	}
	if text := err.Error(); secrets.MatchString(text) {
		err = redacted{redact(text), err}
	}
	e := &Error{Host: host, Ref: ref, Err: err}
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errdefs.ErrUnauthenticated):
		e.permanent = true
	case errors.As(err, &cert):
		e.permanent = true
		e.Err = fmt.Errorf("%w: to trust it, name its CA in the host's hosts.toml", err)
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		e.permanent = true
		e.Err = errors.New("plain http answered to TLS: if it is meant to be spoken to without TLS, list it as a plain http host")
	}
	return e
}

// violation is an error of a response that breaks the protocol.
func violation(resp *http.Response, ref, format string, args ...any) error {
	return &Error{
		Host: resp.Request.URL.Host, Ref: ref, Status: resp.StatusCode,
		Err: fmt.Errorf(format, args...), permanent: true,
	}
}

// retryAfter parses the header, which has seconds or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if s, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// secrets finds what must not get into logs: the query of a URL, which signs
// it, and credentials.
var secrets = regexp.MustCompile(`(https?://[^\s?"'<>]*)\?[^\s"'<>]*|\b((?i:bearer|basic)) +[-\w.~+/]*[A-Z0-9=][-\w.~+/=]*|https?://[^\s/@"'<>]+@`)

// redacted is an error with another text.
type redacted struct {
	text string
	err  error
}

func (r redacted) Error() string { return r.text }
func (r redacted) Unwrap() error { return r.err }

func redact(text string) string { return secrets.ReplaceAllString(text, "$1$2?[redacted]") }

// excerpt returns what an error's body says, on one line.
func excerpt(body []byte) string {
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	text := string(body)
	if json.Unmarshal(body, &doc) == nil && len(doc.Errors) > 0 {
		parts := make([]string, 0, len(doc.Errors))
		for _, e := range doc.Errors {
			parts = append(parts, strings.ToLower(e.Code)+": "+e.Message)
		}
		text = strings.Join(parts, "; ")
	}
	text = redact(text)
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool {
		return r <= ' ' || r == 0x7f
	}), " ")
	if len(text) > maxExcerpt {
		text = strings.ToValidUTF8(text[:maxExcerpt], "") + "..."
	}
	return text
}

// hostsError is what is left when every host of a repository failed. The first
// error is the registry's own, which says most.
type hostsError struct{ errs []error }

func (e *hostsError) Error() string {
	parts := make([]string, len(e.errs))
	for i, err := range e.errs {
		parts[i] = err.Error()
	}
	return strings.Join(parts, "; before that, ")
}

func (e *hostsError) Unwrap() []error { return e.errs }

// Temporary reports whether one of the hosts may succeed later.
func (e *hostsError) Temporary() bool {
	for _, err := range e.errs {
		if t, ok := errors.AsType[*Error](err); !ok || t.Temporary() {
			return true
		}
	}
	return false
}

// RetryAfter returns the shortest wait a host asked for.
func (e *hostsError) RetryAfter() (d time.Duration) {
	for _, err := range e.errs {
		if t, ok := errors.AsType[*Error](err); ok && t.after > 0 && (d == 0 || t.after < d) {
			d = t.after
		}
	}
	return d
}
