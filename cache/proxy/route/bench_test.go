package route_test

import (
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy/route"
)

func BenchmarkResolve(b *testing.B) {
	tab, err := route.New(route.Config{
		Rules:      []route.Rule{theExample},
		Registries: map[string]route.Target{"docker.io": {}},
		Default:    &route.Target{Host: "myregistry.com"},
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, x := range []struct{ name, host, ns string }{
		{"rule", "eu.dragonfly-local.c3.zone:7000", ""}, {"ns", "127.0.0.1:7000", "docker.io"}, {"default", "127.0.0.1:7000", ""},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tab.Resolve(x.host, x.ns); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
