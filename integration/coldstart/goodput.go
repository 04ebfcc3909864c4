package coldstart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/integration/node"
)

// goodputTime is for how long a blob is read; much longer than connections take
// to reach a line's rate.
const goodputTime = 5 * time.Second

// Goodput returns the bytes a second that one GET of a large blob of the image
// "repository:tag" gets from the registry.
func Goodput(ctx context.Context, n *node.Node, name string, d digest.Digest) (float64, error) {
	repository, _, _ := strings.Cut(name, ":")
	url := fmt.Sprintf("http://%s/v2/%s/blobs/%s", n.Proxy.Address, repository, d)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("measuring a line: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("measuring a line: GET %s: %s", url, resp.Status)
	}
	var got int64
	buf := make([]byte, 64<<10)
	for time.Since(start) < goodputTime {
		n, err := resp.Body.Read(buf)
		got += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("measuring a line: %w", err)
		}
	}
	return float64(got) / time.Since(start).Seconds(), nil
}
