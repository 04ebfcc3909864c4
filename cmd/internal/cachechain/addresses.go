package cachechain

import (
	"fmt"
	"net/netip"

	"github.com/reprise-containers/reprise/cache/proxy/route"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
)

// allowed returns the networks that may be dialled although they are not public.
func allowed(s cacheconfig.Server) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range s.AllowAddresses {
		p, err := cacheconfig.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("server.allowAddresses: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

// configured returns the upstreams that the configuration names. One that is an
// address, or localhost, may be dialled without being listed: whoever wrote that can
// only have meant it. Names say nothing about where they lead.
func configured(t *route.Table) []string {
	var out []string
	for _, target := range t.Targets() {
		out = append(out, target.String())
	}
	return out
}
