package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Codes of the distribution specification, and the two that its reference
// implementation adds for what the specification has none.
const (
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeDigestInvalid   = "DIGEST_INVALID"
	codeManifestInvalid = "MANIFEST_INVALID"
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeNameInvalid     = "NAME_INVALID"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeUnauthorized    = "UNAUTHORIZED"
	codeDenied          = "DENIED"
	codeUnsupported     = "UNSUPPORTED"
	codeTooManyRequests = "TOOMANYREQUESTS"
	codeUnavailable     = "UNAVAILABLE"
	codeUnknown         = "UNKNOWN"
)

// apiError is an answer that is no success.
type apiError struct {
	status  int
	code    string
	message string
	header  http.Header // to send with it, besides those of every answer
	body    []byte      // to send instead of one made of code and message
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.code, e.message) }

func apiErrorf(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// errorDocument is the body of an error in the specification's form.
type errorDocument struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string          `json:"code"`
	Message string          `json:"message,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"`
}

func (e *apiError) document() []byte {
	if e.body != nil {
		return e.body
	}
	text, err := json.Marshal(errorDocument{[]errorEntry{{Code: e.code, Message: e.message}}})
	if err != nil {
		return []byte(`{"errors":[{"code":"UNKNOWN"}]}`)
	}
	return append(text, '\n')
}

// passedOn are the headers of an upstream's refusal that its caller needs.
var passedOn = []string{"Www-Authenticate", "Retry-After"}

// maxErrorBody bounds what is read of an error's body.
const maxErrorBody = 64 << 10

// refusal makes an answer of an upstream's refusal of this caller's request.
// Statuses that speak of the resource or the caller are passed on, with the
// upstream's own text if it is in the specification's form; what speaks of the
// upstream's own trouble is a bad gateway.
func refusal(status int, h http.Header, body []byte, kind string) *apiError {
	e := &apiError{status: status, code: codeOf(status, kind), header: make(http.Header)}
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		e.message = "the upstream answers " + strconv.Itoa(status) + " " + http.StatusText(status)
	case status >= 400 && status < 500:
		e.message = http.StatusText(status) + ", says the upstream"
	default:
		e.message = "the upstream answers " + strconv.Itoa(status) + " " + http.StatusText(status)
		e.status, e.code = http.StatusBadGateway, codeUnavailable
	}
	for _, name := range passedOn {
		if v := h[name]; v != nil && (name != "Www-Authenticate" || status == http.StatusUnauthorized) {
			e.header[name] = v
		}
	}
	e.body = passableBody(body)
	return e
}

func codeOf(status int, kind string) string {
	switch {
	case status == http.StatusUnauthorized:
		return codeUnauthorized
	case status == http.StatusForbidden:
		return codeDenied
	case status == http.StatusTooManyRequests:
		return codeTooManyRequests
	case status == http.StatusMethodNotAllowed:
		return codeUnsupported
	case status >= 500:
		return codeUnavailable
	case status != http.StatusNotFound:
		return codeUnknown
	}
	switch kind {
	case KindBlob:
		return codeBlobUnknown
	case KindManifest:
		return codeManifestUnknown
	}
	return codeNameUnknown
}

// signed finds the query of a URL, which signs it.
var signed = regexp.MustCompile(`(?i)(https?://[^\s?"'<>]*)\?[^\s"'<>]*`)

func withoutQueries(text string) string { return signed.ReplaceAllString(text, "$1") }

// passableBody returns what of an upstream's error body is passed on: errors in
// the specification's form, without the queries of addresses; nil if it is
// something else. Details that may have addresses in them are left out.
func passableBody(body []byte) []byte {
	if len(body) == 0 || len(body) > maxErrorBody {
		return nil
	}
	var doc errorDocument
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 || doc.Errors[0].Code == "" {
		return nil
	}
	for i := range doc.Errors {
		e := &doc.Errors[i]
		e.Message = withoutQueries(e.Message)
		if bytes.ContainsAny(e.Detail, ":\\?") && bytes.Contains(bytes.ToLower(e.Detail), []byte("http")) {
			e.Detail = nil
		}
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil
	}
	return text
}

// statusError is an upstream's answer to a GET that is no success.
type statusError struct {
	status int
	header http.Header
	body   []byte
	host   string // that answered, if it was not the upstream's own
}

func (e *statusError) Error() string {
	if e.host != "" {
		return fmt.Sprintf("%s, where the upstream redirects to, answers %d %s", e.host, e.status, http.StatusText(e.status))
	}
	return fmt.Sprintf("the upstream answers %d %s", e.status, http.StatusText(e.status))
}

// Temporary implements blob.Temporary.
func (e *statusError) Temporary() bool {
	return e.status >= 500 && e.status != http.StatusNotImplemented ||
		e.status == http.StatusRequestTimeout || e.status == http.StatusTooManyRequests
}

// RetryAfter implements blob.RetryAfter.
func (e *statusError) RetryAfter() time.Duration {
	s, err := strconv.ParseUint(e.header.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}

// answerTo returns the answer that tells a client of err.
func answerTo(err error, kind string) *apiError {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		if e.host == "" {
			return refusal(e.status, e.header, e.body, kind)
		}
		return apiErrorf(http.StatusBadGateway, codeUnavailable, "%v", e)
	}
	e := apiErrorf(http.StatusBadGateway, codeUnavailable, "asking the upstream: %s", withoutQueries(err.Error()))
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		e.status = http.StatusGatewayTimeout
	}
	if r, ok := errors.AsType[interface {
		error
		blob.RetryAfter
	}](err); ok && r.RetryAfter() > 0 {
		e.status = http.StatusServiceUnavailable
		e.header = http.Header{"Retry-After": {strconv.FormatInt(int64((r.RetryAfter()+time.Second-1)/time.Second), 10)}}
	}
	return e
}
